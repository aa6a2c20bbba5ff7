-- expiry: the expiry of tasks. A task that waits past its time of expiry has expired, whether or not upkeep has ended it.
--
-- defines: has_expired, expire
-- needs: clock, transaction, task, events, stop_waiting, finish_task

-- Returns whether the task waits, and its time of expiry has passed.
local function has_expired(task)
  local expires_at = task[F.expires_at]
  return (task[F.state] == 'ready' or task[F.state] == 'scheduled')
    and expires_at and expires_at ~= '' and tonumber(expires_at) <= now
end

-- Ends a task that has expired, with its time of expiry as the time of its end. In the list of expired tasks, and for its
-- retention, it ends now.
local function expire(task, retain_ms)
  local state = task[F.state]
  stop_waiting(task)
  begin_end(task, 'expired')
  write_task(task, { 'HSET', task.key, F.state, 'expired', F.finished_at, tonumber(task[F.expires_at]), F.end_seq, task.end_seq })
  finish_task(task, 'expired', retain_ms)
  transition(task, state, 'expired')
end
