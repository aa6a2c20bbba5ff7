-- finish_task: the part that every end of a task has in common.
--
-- defines: begin_end, finish_task
-- needs: clock, transaction, counts, index_end, free_dedupe

-- Gives the task its position and its time among the ends in `state`: `end_seq` and `ended_at`, which the script writes.
local function begin_end(task, state)
  task.end_seq, task.ended_at = next_end(task[F.queue], state, COUNTS[state])
end

-- Ends the task in `state`, which the script writes. `default_retain_ms` is how long a task without its own is kept.
local function finish_task(task, state, default_retain_ms)
  index_end(task.id, task[F.queue], state, task.end_seq, task.ended_at, task[F.retain_ms], default_retain_ms)
  free_dedupe(task)
  if task[F.completion_watched] then notify('ended ' .. task.id) end
end
