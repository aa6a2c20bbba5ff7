--[[ subscribe_completion: mark tasks whose end somebody waits for, so that it is published.

KEYS[1] calls       hash   the declared key that carries the shard's tag
ARGV[1] base        derives base .. 'task:' .. id (hash)            same tag as KEYS[1]
ARGV[2] pump        who calls
ARGV[3] number      number of this call: repeated, it answers as before
ARGV[4] offset_ms   '' in production; tests move time with it
ARGV[5] count       of tasks; then the ids
RETURNS state of each, '' where there is no such task
MOVES   -
COST    O(n)
]]
if last then return last end

local ENDED = { completed = true, dead = true, cancelled = true, expired = true }
local replies = {}
for i = 1, tonumber(ARGV[5]) do
  local key = base .. 'task:' .. ARGV[5 + i]
  local task = call('HMGET', key, 'S', 'o')
  touched[key] = true
  if task[1] and not ENDED[task[1]] and not task[2] then write('HSET', key, 'o', '1') end
  replies[i] = task[1] or ''
end
return commit(cmsgpack.pack(replies))
