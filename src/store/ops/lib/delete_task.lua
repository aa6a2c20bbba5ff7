-- delete_task: the part that every deletion of a task has in common.
--
-- defines: delete_task
-- needs: transaction, transition, stop_waiting, free_dedupe
-- keys: ended:<queue>:<state>, retention

-- Deletes a task that waits or has ended, which was loaded with WAITING_FIELDS.
local function delete_task(task)
  local state = task[F.state]
  if stop_waiting(task) then
    free_dedupe(task)
  else
    zset_remove(base .. 'ended:' .. task[F.queue] .. ':' .. state, task.id)
    if (task[F.retain_ms] or '') ~= '' then zset_remove(base .. 'retention', task.id) end
  end
  write_last('DEL', task.key)
  transition(task, state, 'deleted')
  if task[F.completion_watched] then notify('ended ' .. task.id) end
end
