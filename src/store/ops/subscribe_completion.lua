--[[ subscribe_completion: marks tasks so that their end is published on channel `wakeups`.

KEYS    task:<id>
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
  local key = base .. 'task:' .. ARGV[5 + i]
  local state, is_watched, expires_at = unpack(call('HMGET', key, F.state, F.completion_watched, F.expires_at))
  if WAITING[state] and (tonumber(expires_at) or now + 1) <= now then state = 'expired' end
  touched[key] = true
  if state and not ENDED[state] and not is_watched then write('HSET', key, F.completion_watched, '1') end
  replies[i] = state or ''
end
return commit(replies)
