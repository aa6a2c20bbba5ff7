-- front: what decides whether a queue has a task to claim: the front of its wheel, and whether it is paused.
--
-- defines: front_of, set_front, is_paused
-- needs: records

-- Returns the priority at the front of the queue's wheel, nil if the wheel is empty.
local function front_of(record)
  local front = record[L.queue.front]
  return front > 0 and front - 1 or nil
end

local function set_front(queue, priority)
  local record, front = record_of(queue), priority and priority + 1 or 0
  if record[L.queue.front] == front then return end
  record[L.queue.front], record[L.queue.behind] = front, true
end

local function is_paused(record)
  return record[L.queue.flags] % 2 == 1
end
