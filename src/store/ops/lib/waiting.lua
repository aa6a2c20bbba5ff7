-- waiting: a task that waits, for its turn or for its time, leaves where it waits.
local WAITING = { 'S', 'q', 's', 'p', 'x', 'D', 'o', 'R' }

-- False where it does not wait.
local function leave_waiting(task)
  if task.S == 'ready' then
    leave(task.q, task.p, task.s, task.id)
  elseif task.S == 'scheduled' then
    remove(base .. 'scheduled:' .. task.q, task.id)
  else
    return false
  end
  if task.x and task.x ~= '' then remove(base .. 'deadline', task.id) end
  return true
end
