-- stop_waiting: takes tasks out of the indexes of waiting tasks.
--
-- defines: WAITING_FIELDS, stop_waiting
-- needs: transaction, wheel
-- keys: scheduled:<queue>, expirations
local WAITING_FIELDS = { F.expires_at, F.dedupe_digest, F.completion_watched, F.retain_ms }

-- Takes the task out of the indexes of waiting tasks. Returns false if it does not wait.
local function stop_waiting(task)
  if task[F.state] == 'ready' then
    dequeue(task)
  elseif task[F.state] == 'scheduled' then
    zset_remove(base .. 'scheduled:' .. task[F.queue], task.id)
  else
    return false
  end
  local expires_at = task[F.expires_at]
  if expires_at and expires_at ~= '' then zset_remove(base .. 'expirations', task.id) end
  return true
end
