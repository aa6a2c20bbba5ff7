-- attempt: ends a lease as a failed attempt. The task is retried, or ends dead or cancelled; expired, if its time of expiry
-- has passed before the retry.
--
-- Reads ARGV[5..6]: retain_ms of dead tasks, of cancelled and expired ones.
--
-- defines: ATTEMPT_FIELDS, fail_attempt
-- needs: prelude, clock, transaction, task, events, wheel, waiting, finish_task, end_lease, replaced, errors
local ATTEMPT_FIELDS = { F.expires_at, F.claim_digest, F.dedupe_digest, F.cancel_requested, F.completion_watched, F.retain_ms,
  F.error_count, F.successor }
local dead_retain_ms, other_retain_ms = ARGV[5], ARGV[6]

-- Returns the task's next state, and when it runs, if later. `wait_ms` nil: no further attempt.
local function fail_attempt(task, verb, report, wait_ms)
  local attempt = task[F.attempts] + 1
  local state, run_at = 'ready', nil
  if task[F.cancel_requested] then
    state = 'cancelled'
  elseif not wait_ms or is_replaced(task) or attempt >= task[F.max_attempts] then
    state = 'dead'
  elseif (tonumber(task[F.expires_at]) or now + 1) <= now then
    state = 'expired'
  elseif wait_ms > 0 then
    state, run_at = 'scheduled', now + wait_ms
  end
  local command = { 'HSET', task.key, F.state, state, F.attempts, attempt }
  end_lease(task, command, verb, state, run_at)
  add_error(command, task, attempt, report)
  if state == 'ready' then
    local seq = next_seq(task)
    set_field(command, F.seq, seq)
    set_field(command, F.ready_at, now)
    enqueue(task, seq)
    index_expiration(task)
  elseif state == 'scheduled' then
    set_field(command, F.run_at, run_at)
    schedule(task, run_at)
    index_expiration(task)
  else
    finish_task(task, state, state == 'dead' and dead_retain_ms or other_retain_ms)
  end
  write_task(task, command)
  transition(task, 'leased', state)
  return state, run_at
end
