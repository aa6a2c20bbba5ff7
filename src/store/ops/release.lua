--[[ release: returns leased tasks without counting an attempt. A task keeps its position, or waits for its delay; past its
time of expiry it ends.

ARGV[5] retain_ms   how long a cancelled or expired task without its own retention is kept
ARGV[6] count       of tasks; then for each: id, token, delay_ms
RETURNS {'released', state, run_at | ''} | {'repeated', state, run_at | ''} | {'lease_lost', state} | {'unknown'}, for each task
MOVES   leased -> ready | scheduled | cancelled | expired
COST    O(n log queue)
]]
if last_reply then return last_reply end

local RELEASE_FIELDS = { F.state, F.queue, F.slot, F.priority, F.seq, F.expires_at, F.lease_token, F.lease_until, F.leased_at,
  F.created_at, F.ready_at, F.queued_since, F.claim_digest, F.dedupe_digest, F.cancel_requested, F.completion_watched, F.retain_ms }

local function release(task, delay_ms)
  local state, run_at = 'ready', nil
  if task[F.cancel_requested] then
    state = 'cancelled'
  elseif (tonumber(task[F.expires_at]) or now + 1) <= now then
    state = 'expired'
  elseif delay_ms > 0 then
    state, run_at = 'scheduled', now + delay_ms
  end
  local command = { 'HSET', task.key, F.state, state, end_lease(task, 'release', state, run_at) }
  if state == 'ready' then
    -- The wait restarts: the time under lease is no wait. The position dates from the first arrival, also after several
    -- releases. queued_since holds the time of that arrival, and the ready_at for which it is valid.
    local ready_at = task[F.ready_at] or task[F.created_at]
    local valid_for, since = string.match(task[F.queued_since] or '', '^(%d+) (%d+)$')
    set_field(command, F.ready_at, now_digits)
    set_field(command, F.queued_since, now_digits .. ' ' .. (valid_for == ready_at and since or ready_at))
    enqueue(task[F.queue], task[F.priority], task[F.slot], task[F.seq], task.id, true)
    index_expiration(task)
  elseif state == 'scheduled' then
    set_field(command, F.run_at, run_at)
    schedule(task, run_at)
    index_expiration(task)
  else
    set_field(command, F.finished_at, now)
    finish_task(task, state, ARGV[5])
  end
  writes[#writes + 1] = command
  transition(task, 'leased', state)
  return { 'released', state, run_at or '' }
end

local replies = {}
for i = 1, tonumber(ARGV[6]) do
  local at = 4 + 3 * i
  local task = load_task(ARGV[at], RELEASE_FIELDS)
  replies[i] = check_lease(task, ARGV[at + 1], 'release') or release(task, tonumber(ARGV[at + 2]))
end
return commit(replies)
