-- finish_task: the part that every end of a task has in common.
--
-- defines: finish_task
-- needs: clock, transaction, free_dedupe
-- keys: ended:<queue>:<state>, retention

-- Ends the task in `state`, which the script writes. `default_retain_ms` is how long a task without its own is kept;
-- `ended_at`, now if nil, is the time of the end.
local delete_at = {}
local function finish_task(task, state, default_retain_ms, ended_at)
  zset_add(base .. 'ended:' .. task[F.queue] .. ':' .. state, ended_at or now_digits, task.id)
  local retain_ms = task[F.retain_ms]
  if not retain_ms or retain_ms == '' then retain_ms = default_retain_ms end
  delete_at[retain_ms] = delete_at[retain_ms] or digits(now + tonumber(retain_ms))
  zset_add(base .. 'retention', delete_at[retain_ms], task.id)
  free_dedupe(task)
  if task[F.completion_watched] then notify('ended ' .. task.id) end
end
