-- due: the times of queues in `due`. A queue's record has the same time, so that most calls need no command.
--
-- A time becomes earlier before the record says so, and later after it: a stopped script leaves no queue that is due later
-- than its record says. A record that was replaced, and has no time, makes no time later.
--
-- defines: due_no_later; earlier_queues, moved_queues, which set_due enters
-- needs: clock, transaction, records
-- sets: stage_due
-- keys: due

-- Queues whose time becomes earlier; queues whose time is that of their record, whatever it was; nil: none.
local earlier_queues, moved_queues

-- Lowers the time of the queue, which is not later than that of its first scheduled or leased task.
local function due_no_later(queue, time)
  local record = record_of(queue)
  local due = record[L.queue.due]
  if time < 1 then time = 1 end
  if due == 0 or time < due then
    record[L.queue.due], record[L.queue.behind] = time, true
    earlier_queues = earlier_queues or {}
    earlier_queues[queue] = true
  end
end

stage_due = function()
  local key, earliest = base .. 'due', nil
  for queue in pairs(earlier_queues or {}) do
    local time = record_of(queue)[L.queue.due]
    if not (moved_queues and moved_queues[queue]) then write('ZADD', key, 'LT', digits(time), queue) end
    if not earliest or time < earliest then earliest = time end
  end
  if earliest then
    -- Upkeep wakes for the first time that has not come. Earlier ones belong to work that it has begun or cannot do.
    local first = call('ZRANGEBYSCORE', key, '(' .. digits(now), '+inf', 'WITHSCORES', 'LIMIT', 0, 1)
    if not first[2] or earliest < tonumber(first[2]) then notify('due ' .. digits(earliest)) end
  end
  for queue in pairs(moved_queues or {}) do
    local time = record_of(queue)[L.queue.due]
    if time == 0 then zset_remove(key, queue) else write_last('ZADD', key, digits(time), queue) end
  end
end
