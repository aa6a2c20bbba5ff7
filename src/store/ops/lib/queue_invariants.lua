-- queue_invariants: the invariants of whole queues and of the shard. Entries, which these sum up, are checked first.
--
-- defines: check_invariants
-- needs: invariants
-- keys: wheel:<queue>, settings_copy:<queue>, ready, queues, due, count:<queue>, count, slot:<queue>:<priority>:<slot>,
--   scheduled:<queue>, leased:<queue>, ended:<queue>:<state>

-- A queue is in `ready`, `due` and `queues` if and only if it has the tasks for it.
function checks.queue(flag, queue)
  local front = call('ZRANGE', base .. 'wheel:' .. queue, 0, 0)[1]
  local paused = call('HGET', base .. 'settings_copy:' .. queue, 'paused') == '1'
  local expected = front and not paused and tonumber(string.match(front, '^%d+')) or nil
  local score = tonumber(call('ZSCORE', base .. 'ready', queue))
  touched[base .. 'ready'], touched[base .. 'queues'] = true, true
  if expected ~= score then
    flag('priority in ready is ' .. (score or 'missing') .. ', expected ' .. (expected or 'none'), 'corrected')
    if expected then
      zset_add(base .. 'ready', expected, queue)
      notify('ready ' .. expected .. ' ' .. queue)
    else
      zset_remove(base .. 'ready', queue)
    end
  end
  local first
  for _, index in ipairs({ base .. 'scheduled:' .. queue, base .. 'leased:' .. queue }) do
    local time = tonumber(call('ZRANGE', index, 0, 0, 'WITHSCORES')[2])
    if time and (not first or time < first) then first = time end
  end
  local due = tonumber(call('ZSCORE', base .. 'due', queue))
  if first and (not due or due > first) then
    flag('time in due is ' .. (due and digits(due) or 'missing') .. ', but a task is due at ' .. digits(first), 'corrected')
    due_no_later(queue, first)
  end
  local is_listed = call('ZSCORE', base .. 'queues', queue)
  local exists = front or first or call('EXISTS', base .. 'count:' .. queue, base .. 'settings_copy:' .. queue) > 0
  if exists and not is_listed then
    flag('missing from the list of queues', 'added')
    zset_add(base .. 'queues', 0, queue)
  elseif is_listed and not exists then
    flag('in the list of queues, but it does not exist', 'removed')
    zset_remove(base .. 'queues', queue)
  end
end

local COUNTS = { 'submitted', 'scheduled', 'ready', 'leased', 'completed', 'dead', 'cancelled', 'expired', 'deleted' }

local function read_counts(key)
  local counts = {}
  for i, value in ipairs(call('HMGET', key, unpack(COUNTS))) do counts[COUNTS[i]] = tonumber(value or 0) end
  return counts
end

-- Brings a hash of counts to `expected`. Submitted tasks that no count accounts for have been deleted.
local function set_counts(flag, key, counts, expected)
  local deltas, sum = {}, expected.deleted
  count_deltas[key] = deltas
  for _, name in ipairs(COUNTS) do
    if name ~= 'submitted' and name ~= 'deleted' then sum = sum + expected[name] end
  end
  if expected.submitted > sum then
    expected.deleted = expected.deleted + expected.submitted - sum
  else
    expected.submitted = sum
  end
  for _, name in ipairs(COUNTS) do
    if counts[name] ~= expected[name] then
      flag('count of ' .. name .. ' is ' .. digits(counts[name]) .. ', expected ' .. digits(expected[name]), 'corrected')
    end
    deltas[name] = expected[name] - counts[name]
  end
end

-- The counts of a queue equal the sizes of its indexes. `members` are slot queues that are not on the wheel.
function checks.queue_counts(flag, queue, ...)
  local wheel, key = base .. 'wheel:' .. queue, base .. 'count:' .. queue
  if call('ZCARD', wheel) > MAX_SLOTS then
    return flag('', 'counts not checked: more than ' .. MAX_SLOTS .. ' slots have ready tasks')
  end
  local is_summed, ready = {}, 0
  local function sum(members)
    for _, member in ipairs(members) do
      if not is_summed[member] then ready = ready + call('ZCARD', base .. 'slot:' .. queue .. ':' .. member) end
      is_summed[member] = true
    end
  end
  sum(call('ZRANGE', wheel, 0, -1))
  sum({ ... })
  local counts = read_counts(key)
  local expected = { ready = ready, submitted = counts.submitted, deleted = counts.deleted,
    scheduled = call('ZCARD', base .. 'scheduled:' .. queue), leased = call('ZCARD', base .. 'leased:' .. queue) }
  for state in pairs(ENDED) do expected[state] = call('ZCARD', base .. 'ended:' .. queue .. ':' .. state) end
  set_counts(flag, key, counts, expected)
end

-- The counts of the shard are the sums of those of its queues; a deleted queue leaves submitted and deleted tasks.
function checks.shard_counts(flag, ...)
  local key, queues = base .. 'count', call('ZRANGE', base .. 'queues', 0, MAX_QUEUES)
  if #queues > MAX_QUEUES then return flag('', 'counts not checked: more than ' .. MAX_QUEUES .. ' queues') end
  for _, queue in ipairs({ ... }) do
    if not call('ZSCORE', base .. 'queues', queue) then queues[#queues + 1] = queue end
  end
  local expected = {}
  for _, name in ipairs(COUNTS) do expected[name] = 0 end
  for _, queue in ipairs(queues) do
    for name, n in pairs(read_counts(base .. 'count:' .. queue)) do expected[name] = expected[name] + n end
  end
  local counts = read_counts(key)
  expected.submitted = math.max(expected.submitted, counts.submitted)
  set_counts(flag, key, counts, expected)
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
