-- transition: counts and publishes the transitions of tasks between any states.
--
-- defines: transition
-- needs: records, counts, events

-- Counts and publishes a transition.
local function transition(task, from, to)
  local queue = task[F.queue]
  count(queue, COUNTS[from], -1)
  count(queue, COUNTS[to], 1)
  emit_event(task.id, queue, from, to)
end
