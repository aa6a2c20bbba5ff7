--[[ release: ends leases without counting an attempt. Each task keeps its position in its slot, or waits for its delay; past
its time of expiry it ends.

A release by the worker or by a client ends the turn of the slot: a slot that had left the wheel comes to its rear. A claim
that was not delivered was no turn: the slot comes to the front, and the hand-out does not count for max_acquired. A task
that its worker releases after its last hand-out is dead.

ARGV[5] retain_ms    how long a dead task without its own retention is kept
ARGV[6] retain_ms    how long a cancelled or expired one is
ARGV[7] errors       maximum of errors that a task keeps
ARGV[8] bytes        maximum of their bytes in all; the last error is kept whatever its size
ARGV[9] hand-outs    max_acquired of a task without its own
ARGV[10] report      the error of a task after its last hand-out, up to the name of its worker
ARGV[11] report      the rest of it
ARGV[12] count       of tasks; then for each: id, by, proof, delay_ms. by is 'worker' or 'undelivered', with the token, or
                     'client', with the number of the hand-out or ''
RETURNS {'released', state, run_at | ''} | {'repeated', state, run_at | ''} | {'lease_lost', state} | {'unknown'}, for each task
MOVES   leased -> ready | scheduled | cancelled | expired | dead
COST    O(n log queue)
]]
local RELEASE_FIELDS = { F.expires_at, F.queued_since, F.claim_digest, F.dedupe_digest, F.cancel_requested, F.completion_watched,
  F.retain_ms, F.max_acquired, F.uncounted, F.error_count, F.successor }
local tasks, answer = open_with_tasks(tonumber(ARGV[12]), 13, 4, RELEASE_FIELDS)
if answer then return answer end

-- Returns nil if a client may end the lease, else the reply. Without a lease since, a repetition gets the first reply.
local function check_revocation(task, hand_out)
  if not task then return { 'unknown' } end
  local state = task[F.state]
  if hand_out ~= '' and task[F.acquired] ~= tonumber(hand_out) then return { 'lease_lost', state } end
  if state == 'leased' then
    local lease_until = task[F.lease_until]
    local is_lost = lease_until <= now and (lease_end(task, lease_until)) <= now
    return is_lost and { 'lease_lost', state } or nil
  end
  local ended_in, run_at = task[F.ended_state], task[F.ended_run_at]
  if task[F.ended_by] == 'revoke' and (state == ended_in or state == 'ready' or state == 'scheduled') then
    return { 'repeated', state, state == ended_in and run_at > 0 and run_at or '' }
  end
  return { 'lease_lost', state }
end

local function is_last_hand_out(task)
  local max = tonumber(task[F.max_acquired]) or tonumber(ARGV[9])
  return max > 0 and task[F.acquired] - (tonumber(task[F.uncounted]) or 0) >= max
end

local function release(task, by, delay_ms)
  local state, run_at = 'ready', nil
  if task[F.cancel_requested] or is_replaced(task) then
    state = 'cancelled'
  elseif by == 'worker' and is_last_hand_out(task) then
    state = 'dead'
  elseif (tonumber(task[F.expires_at]) or now + 1) <= now then
    state = 'expired'
  elseif delay_ms > 0 then
    state, run_at = 'scheduled', now + delay_ms
  end
  local command = { 'HSET', task.key, F.state, state }
  end_lease(task, command, by == 'client' and 'revoke' or 'release', state, run_at)
  if by == 'undelivered' then set_field(command, F.uncounted, (tonumber(task[F.uncounted]) or 0) + 1) end
  if state == 'ready' then
    -- The wait restarts: the time under lease is no wait. The position dates from the first arrival, also after several
    -- releases. queued_since holds the time of that arrival, and the ready_at for which it is valid.
    local ready_at = digits(task[F.ready_at])
    local valid_for, since = string.match(task[F.queued_since] or '', '^(%d+) (%d+)$')
    set_field(command, F.ready_at, now)
    set_field(command, F.queued_since, digits(now) .. ' ' .. (valid_for == ready_at and since or ready_at))
    enqueue(task, task[F.seq])
    if by == 'undelivered' then give_turn_back(task) end
    index_expiration(task)
  elseif state == 'scheduled' then
    set_field(command, F.run_at, run_at)
    schedule(task, run_at)
    index_expiration(task)
  else
    if state == 'dead' then
      add_error(command, task, task[F.attempts] + 1, ARGV[10] .. cjson.encode(task[F.worker]) .. ARGV[11])
    end
    finish_task(task, state, state == 'dead' and ARGV[5] or ARGV[6])
  end
  write_task(task, command)
  transition(task, 'leased', state)
  return { 'released', state, run_at or '' }
end

local replies = {}
for i, task in ipairs(tasks) do
  local at, reply = 9 + 4 * i, nil
  local by, proof, delay_ms = unpack(ARGV, at + 1, at + 3)
  if by == 'client' then reply = check_revocation(task, proof) else reply = check_lease(task, proof, 'release') end
  replies[i] = reply or release(task, by, tonumber(delay_ms))
end
return commit(replies)
