--[[ subscribe_completion: marks tasks so that their end is published on channel `wakeups`.

ARGV[5] count       of tasks; then the ids
RETURNS the state of each task, 'expired' if it waits past its time of expiry, '' if there is no such task
MOVES   -
COST    O(n)
]]
local answer = open_call()
if answer then return answer end

local ENDED = { completed = true, dead = true, cancelled = true, expired = true }
local WAITING = { ready = true, scheduled = true }
local replies = {}
for i = 1, tonumber(ARGV[5]) do
  local task = load_task(ARGV[5 + i], { F.completion_watched, F.expires_at })
  local state = task and task[F.state] or ''
  if WAITING[state] and (tonumber(task[F.expires_at]) or now + 1) <= now then state = 'expired' end
  if task and not ENDED[state] and not task[F.completion_watched] then
    write_task(task, { 'HSET', task.key, F.completion_watched, '1', F.options, bit.bor(task[F.options], 2) })
  end
  replies[i] = state
end
return commit(replies)
