-- delete_task: the part that every deletion of a task has in common.
--
-- defines: delete_task
-- needs: transaction, transition, stop_waiting, free_dedupe, unindex_end

-- Deletes a task that waits or has ended, which was loaded with WAITING_FIELDS. `found_in` is the key of the list of ended tasks
-- in which it was found; nil: that of its position.
local function delete_task(task, found_in)
  local state = task[F.state]
  if stop_waiting(task) then
    free_dedupe(task)
  else
    unindex_end(task, found_in)
  end
  write_last('DEL', task.key)
  transition(task, state, 'deleted')
  if task[F.completion_watched] then notify('ended ' .. task.id) end
end
