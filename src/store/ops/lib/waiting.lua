-- waiting: puts tasks into the indexes of waiting tasks; a waiting task is ready or scheduled.
--
-- defines: schedule, index_expiration
-- needs: transaction
-- keys: scheduled:<queue>, expirations

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
