-- queue_invariants: the invariants of a queue as a whole, and of the counters.
--
-- defines: checks.queue, checks.last_turn, checks.last_seq, checks.settings
-- needs: invariants, retained_invariants, wheel_invariants
-- keys: callers, settings_copy:<queue>, settings:<queue>, settings_index, queues, due, scheduled:<queue>, leased:<queue>,
--   ended:<queue>:<state>

-- The time of a queue in `due` is not later than that of its first task, nor than that of its record.
local function check_due(flag, queue, record)
  local first
  for _, index in ipairs({ base .. 'scheduled:' .. queue, base .. 'leased:' .. queue }) do
    local time = tonumber(call('ZRANGE', index, 0, 0, 'WITHSCORES')[2])
    if time and (not first or time < first) then first = time end
  end
  first = first and math.max(first, 1)
  local due, recorded = tonumber(call('ZSCORE', base .. 'due', queue)), record[L.queue.due]
  if first and (not due or due > first) then
    flag('time in due is ' .. (due and digits(due) or 'missing') .. ', but a task is due at ' .. digits(first), 'corrected')
    set_due(queue, first, true)
  elseif recorded ~= 0 and (not due or due > recorded) then
    flag('time in due is ' .. (due and digits(due) or 'missing') .. ', but its record says ' .. digits(recorded), 'corrected')
    set_due(queue, due)
  end
  return first ~= nil
end

-- A list of ended tasks has pieces only if its head has tasks.
local function check_ended_heads(flag, queue, record)
  if record.tail == '' then return end
  use_pieces()
  for state in pairs(ENDED) do
    local key = base .. 'ended:' .. queue .. ':' .. state
    if call('EXISTS', key) == 0 and move_first_piece(record, state, key) then
      flag('the head of its ' .. state .. ' tasks is empty, but pieces are left', 'moved')
    end
  end
end

-- The record of a queue is readable and agrees with its indexes. A queue is in `queues` if and only if it exists.
function checks.queue(flag, queue)
  local record = record_of(queue)
  if unreadable_records[queue] then
    flag('its record cannot be read', 'replaced')
    record[L.queue.behind] = true
  end
  local has_ready, has_due = check_front(flag, queue, record), check_due(flag, queue, record)
  check_ended_flags(flag, queue, record)
  check_ended_heads(flag, queue, record)
  check_passes(flag, queue, record)
  local is_listed = call('ZSCORE', base .. 'queues', queue)
  local exists = has_ready or has_due or record[L.queue.submitted] > 0 or call('EXISTS', base .. 'settings_copy:' .. queue) == 1
  if exists and not is_listed then
    flag('missing from the list of queues', 'added')
    zset_add(base .. 'queues', 0, queue)
  elseif is_listed and not exists then
    flag('in the list of queues, but it does not exist', 'removed')
    zset_remove(base .. 'queues', queue)
  end
end

-- The record of the shard is readable, and its last turn is not before one in use.
function checks.last_turn(flag, used_turn)
  local record = shard_record()
  local turn, used = record[L.shard.turn], tonumber(used_turn)
  if unreadable_records['the shard'] then
    flag('the record of the shard cannot be read', 'replaced')
  elseif turn < used then
    flag('last turn is ' .. digits(turn) .. ', but ' .. used_turn .. ' is in use', 'corrected')
  else
    return
  end
  record[L.shard.turn], is_shard_changed = math.max(turn, used), true
end

-- The last positions of a queue are not before those in use.
function checks.last_seq(flag, queue, used_seq, ...)
  local record = record_of(queue)
  local function check(name, place, used)
    if record[place] >= tonumber(used) then return end
    flag('last ' .. name .. ' is ' .. digits(record[place]) .. ', but ' .. used .. ' is in use', 'corrected')
    record[place], record[L.queue.behind] = tonumber(used), true
  end
  check('seq', L.queue.seq, used_seq)
  for i, used in ipairs({ ... }) do check('end of state ' .. i, L.queue.completed_ends + i - 1, used) end
end

-- A queue's settings are in the settings index if and only if they exist.
function checks.settings(flag, queue)
  local key = base .. 'settings_index'
  local exist, is_indexed = call('EXISTS', base .. 'settings:' .. queue) == 1, call('ZSCORE', key, queue)
  if exist and not is_indexed then
    flag('missing from settings_index', 'added')
    zset_add(key, 0, queue)
  elseif is_indexed and not exist then
    flag('in settings_index, but they do not exist', 'removed')
    zset_remove(key, queue)
  end
end
