--[[ expire_leases: lease expiry. Ends expired leases as failed attempts, so that a task that crashes its workers ends dead.

KEYS    leased:<queue>
ARGV[5] retain_ms   how long a dead task without its own retention is kept
ARGV[6] retain_ms   how long a cancelled or expired one is
ARGV[7] errors      maximum of errors that a task keeps
ARGV[8] bytes       maximum of their bytes in all; the last error is kept whatever its size
ARGV[9] count       of leases; then for each: id, token, error, wait_ms
RETURNS {tasks that are dead now, cancelled now, expired now, leases that outages have prolonged, index of each lease that was
        ended, from 1, …}
MOVES   leased -> scheduled | ready | dead | cancelled | expired
COST    O(n log queue)
]]
local answer = open_call()
if answer then return answer end

local reply, ended, prolonged = { 0, 0, 0, 0 }, { dead = 0, cancelled = 0, expired = 0 }, 0

local function keep_until(task, lease_until, counted_until)
  write_task(task, { 'HSET', task.key, F.lease_until, lease_until, F.lease_set_at, math.max(now, counted_until) })
  zset_add(base .. 'leased:' .. task[F.queue], lease_until, task.id)
  due_no_later(task[F.queue], lease_until)
  prolonged = prolonged + 1
end

for i = 1, tonumber(ARGV[9]) do
  local at = 6 + 4 * i
  local task = load_task(ARGV[at], ATTEMPT_FIELDS)
  -- The lease may have been extended or ended since it was found.
  if task and task[F.state] == 'leased' and task[F.lease_token] == ARGV[at + 1] and task[F.lease_until] <= now then
    local lease_until, counted_until = lease_end(task, task[F.lease_until])
    task[F.lease_until] = lease_until
    if lease_until > now then
      keep_until(task, lease_until, counted_until)
    else
      local state = fail_attempt(task, 'expire', ARGV[at + 2], tonumber(ARGV[at + 3]))
      reply[#reply + 1] = i
      if ended[state] then ended[state] = ended[state] + 1 end
    end
  end
end
reply[1], reply[2], reply[3], reply[4] = ended.dead, ended.cancelled, ended.expired, prolonged
return commit(reply)
