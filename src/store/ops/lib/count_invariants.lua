-- count_invariants: the counts of queues and of the shard. Entries, which these sum up, are checked first.
--
-- defines: checks.queue_counts, checks.shard_counts, check_invariants
-- needs: invariants, counts
-- keys: wheel:<queue>, queues, slot:<queue>:<priority>:<slot>, slot:<queue>:<priority>:<slot>:<piece>, scheduled:<queue>,
--   leased:<queue>, ended:<queue>:<state>, ended:<queue>:<state>:<piece>

-- Brings the counts in a record to `expected`, by their names. Submitted tasks that no count accounts for have been deleted.
-- Returns whether one was wrong.
local function set_counts(flag, record, expected)
  local sum, is_wrong = expected.deleted, false
  for name in pairs(COUNTS) do
    if name ~= 'submitted' and name ~= 'deleted' then sum = sum + expected[name] end
  end
  if expected.submitted > sum then
    expected.deleted = expected.deleted + expected.submitted - sum
  else
    expected.submitted = sum
  end
  for name, place in pairs(COUNTS) do
    if record[place] ~= expected[name] then
      flag('count of ' .. name .. ' is ' .. digits(record[place]) .. ', expected ' .. digits(expected[name]), 'corrected')
      record[place], is_wrong = expected[name], true
    end
  end
  return is_wrong
end

-- The counts of a queue equal the sizes of its indexes. `members` are slot queues that are not on the wheel.
function checks.queue_counts(flag, queue, ...)
  local wheel, record = base .. 'wheel:' .. queue, record_of(queue)
  if call('ZCARD', wheel) > MAX_SLOTS then
    return flag('', 'counts not checked: more than ' .. MAX_SLOTS .. ' slots have ready tasks')
  end
  local is_summed, ready = {}, 0
  local function size_of(member, head)
    local size, pieces = call('ZCARD', head), nil
    if record.tail ~= '' then
      use_pieces()
      pieces = pieces_of(record)[member]
    end
    for number = pieces and pieces.first or 1, pieces and pieces.last or 0 do
      size = size + call('ZCARD', head .. ':' .. digits(number))
    end
    return size
  end
  local function sum(members)
    for _, member in ipairs(members) do
      if not is_summed[member] then ready = ready + size_of(member, base .. 'slot:' .. queue .. ':' .. member) end
      is_summed[member] = true
    end
  end
  sum(call('ZRANGE', wheel, 0, -1))
  sum({ ... })
  local expected = { ready = ready, submitted = record[L.queue.submitted], deleted = record[L.queue.deleted],
    scheduled = call('ZCARD', base .. 'scheduled:' .. queue), leased = call('ZCARD', base .. 'leased:' .. queue) }
  for state in pairs(ENDED) do expected[state] = size_of(state, base .. 'ended:' .. queue .. ':' .. state) end
  if set_counts(flag, record, expected) then record[L.queue.behind] = true end
end

-- The counts of the shard are the sums of those of its queues; a deleted queue leaves submitted and deleted tasks.
function checks.shard_counts(flag, ...)
  local queues, record, expected = call('ZRANGE', base .. 'queues', 0, MAX_QUEUES), shard_record(), {}
  if #queues > MAX_QUEUES then return flag('', 'counts not checked: more than ' .. MAX_QUEUES .. ' queues') end
  for _, queue in ipairs({ ... }) do
    if not call('ZSCORE', base .. 'queues', queue) then queues[#queues + 1] = queue end
  end
  for name in pairs(COUNTS) do expected[name] = 0 end
  for _, queue in ipairs(queues) do
    local of_queue = record_of(queue)
    for name, place in pairs(COUNTS) do expected[name] = expected[name] + of_queue[place] end
  end
  expected.submitted = math.max(expected.submitted, record[L.shard.submitted])
  if set_counts(flag, record, expected) then is_shard_changed = true end
end

-- Checks the invariants at ARGV[from]: their number; for each its kind, the number of its arguments, the arguments.
-- Returns for each a list of {violation, repair}; an empty violation goes with a remark instead of a repair.
local function check_invariants(from)
  local replies, at = {}, from + 1
  for i = 1, tonumber(ARGV[from]) do
    local findings = {}
    local function flag(violation, repair)
      findings[#findings + 1] = { violation, repair }
    end
    local last_argument = at + 1 + ARGV[at + 1]
    checks[ARGV[at]](flag, unpack(ARGV, at + 2, last_argument))
    at = last_argument + 1
    replies[i] = findings
  end
  return replies
end
