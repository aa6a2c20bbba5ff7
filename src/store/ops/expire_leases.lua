--[[ expire_leases: lease expiry. Ends expired leases as failed attempts, so that a task that crashes its workers ends dead.

ARGV[5] retain_ms   how long a dead task without its own retention is kept
ARGV[6] retain_ms   how long a cancelled or expired one is
ARGV[7] errors      maximum of errors that a task keeps
ARGV[8] bytes       maximum of their bytes in all; the last error is kept whatever its size
ARGV[9] count       of leases; then for each: id, token, error, wait_ms
RETURNS {tasks that are dead now, cancelled now, expired now, index of each lease that was ended, from 1, …}
MOVES   leased -> scheduled | ready | dead | cancelled | expired
COST    O(n log queue)
]]
if last_reply then return last_reply end

local reply, ended = { 0, 0, 0 }, { dead = 0, cancelled = 0, expired = 0 }
for i = 1, tonumber(ARGV[9]) do
  local at = 6 + 4 * i
  local task = load_task(ARGV[at], ATTEMPT_FIELDS)
  -- The lease may have been extended or ended since it was found.
  if task and task[F.state] == 'leased' and task[F.lease_token] == ARGV[at + 1] and tonumber(task[F.lease_until]) <= now then
    local state = fail_attempt(task, 'expire', ARGV[at + 2], tonumber(ARGV[at + 3]))
    reply[#reply + 1] = i
    if ended[state] then ended[state] = ended[state] + 1 end
  end
end
reply[1], reply[2], reply[3] = ended.dead, ended.cancelled, ended.expired
return commit(reply)
