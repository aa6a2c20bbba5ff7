-- index_end: the indexes of ended tasks. Only tasks with an own retention have a time of deletion each. For the others, which
-- end in the order of their deletion, `ended_due` has one for all of a queue and state: that of the first which purge_ended
-- has not looked at. A flag in the record of the queue says that there is one, so that most ends need no command.
--
-- defines: ended_flag, index_end
-- needs: clock, transaction, records
-- keys: ended:<queue>:<state>, retention, ended_due
local now_digits

-- Returns the flag of a state, a power of 2, and whether the record has it.
local function ended_flag(record, state)
  local flag = state == 'completed' and 2 or state == 'dead' and 4 or state == 'cancelled' and 8 or 16
  return flag, math.floor(record[L.queue.flags] / flag) % 2 == 1
end

-- Enters a task that ends in `state` at `ended_at`, now if nil. It is kept for `retain_ms`, which is its own, or if that is nil
-- or '' for `default_retain_ms`.
local function index_end(id, queue, state, ended_at, retain_ms, default_retain_ms)
  now_digits = now_digits or digits(now)
  zset_add(base .. 'ended:' .. queue .. ':' .. state, ended_at or now_digits, id)
  if retain_ms and retain_ms ~= '' then
    zset_add(base .. 'retention', digits(now + tonumber(retain_ms)), id)
    return
  end
  local record = record_of(queue)
  local flag, is_listed = ended_flag(record, state)
  -- An earlier end may be before the first one.
  if is_listed and not ended_at then return end
  write('ZADD', base .. 'ended_due', 'LT', digits((ended_at or now) + default_retain_ms), queue .. ':' .. state)
  if not is_listed then record[L.queue.flags], record[L.queue.behind] = record[L.queue.flags] + flag, true end
end
