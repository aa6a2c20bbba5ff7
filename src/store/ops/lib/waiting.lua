-- waiting: tasks enter and leave the indexes of waiting tasks; a waiting task is ready or scheduled.
--
-- defines: WAITING_FIELDS, schedule, index_expiration, stop_waiting
-- needs: transaction, wheel
-- keys: scheduled:<queue>, expirations
local WAITING_FIELDS = { F.state, F.queue, F.slot, F.priority, F.expires_at, F.dedupe_digest, F.completion_watched, F.retain_ms }

-- Schedules the task for `run_at`, in ms.
local function schedule(task, run_at)
  zset_add(base .. 'scheduled:' .. task[F.queue], run_at, task.id)
  due_no_later(task[F.queue], run_at)
end

-- A task that waits again can expire again.
local function index_expiration(task)
  local expires_at = task[F.expires_at]
  if expires_at and expires_at ~= '' then zset_add(base .. 'expirations', expires_at, task.id) end
end

-- Takes the task out of the indexes of waiting tasks. Returns false if it does not wait.
local function stop_waiting(task)
  if task[F.state] == 'ready' then
    dequeue(task[F.queue], task[F.priority], task[F.slot], task.id)
  elseif task[F.state] == 'scheduled' then
    zset_remove(base .. 'scheduled:' .. task[F.queue], task.id)
  else
    return false
  end
  local expires_at = task[F.expires_at]
  if expires_at and expires_at ~= '' then zset_remove(base .. 'expirations', task.id) end
  return true
end
