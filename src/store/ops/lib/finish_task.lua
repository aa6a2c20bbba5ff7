-- finish_task: the part that every end of a task has in common.
--
-- defines: finish_task
-- needs: clock, transaction, index_end, free_dedupe

-- Ends the task in `state`, which the script writes. `default_retain_ms` is how long a task without its own is kept;
-- `ended_at`, now if nil, is the time of the end.
local function finish_task(task, state, default_retain_ms, ended_at)
  index_end(task.id, task[F.queue], state, ended_at, task[F.retain_ms], default_retain_ms)
  free_dedupe(task)
  if task[F.completion_watched] then notify('ended ' .. task.id) end
end
