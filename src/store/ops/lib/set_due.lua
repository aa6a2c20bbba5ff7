-- set_due: changes the times of queues in `due` that may become later.
--
-- defines: set_due
-- needs: records, due

-- Sets the time of the queue; nil: the queue is not due. A record says so by 0: an earlier time counts as 1. `wakes_upkeep`:
-- upkeep may not know of a time as early.
local function set_due(queue, time, wakes_upkeep)
  local record = record_of(queue)
  record[L.queue.due], record[L.queue.behind] = time and math.max(time, 1) or 0, true
  moved_queues = moved_queues or {}
  moved_queues[queue] = true
  if wakes_upkeep then
    earlier_queues = earlier_queues or {}
    earlier_queues[queue] = true
  end
end
