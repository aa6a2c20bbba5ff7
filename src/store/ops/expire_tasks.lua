--[[ expire_tasks: ends waiting tasks whose time of expiry has passed.

KEYS    expirations
ARGV[5] retain_ms   how long an expired task without its own retention is kept
ARGV[6] limit       maximum of tasks
RETURNS {tasks ended, entries checked}; if `limit` entries were checked, there may be more
MOVES   ready -> expired, scheduled -> expired
COST    O(n log queue)
]]
local answer = open_call()
if answer then return answer end

local ended = 0
local ids = call('ZRANGEBYSCORE', base .. 'expirations', '-inf', digits(now), 'LIMIT', 0, ARGV[6])
for _, id in ipairs(ids) do
  local task = load_task(id, WAITING_FIELDS)
  if task and has_expired(task) then
    expire(task, ARGV[5])
    ended = ended + 1
  else
    -- A stale entry must not come before others again. A task that waits again gets a new one.
    local expires_at = task and (task[F.state] == 'ready' or task[F.state] == 'scheduled') and tonumber(task[F.expires_at])
    if expires_at then
      zset_add(base .. 'expirations', digits(expires_at), id)
    else
      zset_remove(base .. 'expirations', id)
    end
  end
end
return commit({ ended, #ids })
