--[[ apply_settings: bring a shard's copy of a queue's settings up to a version of the master copy.

KEYS[1] calls       hash   last call of each pump; the declared key that carries the shard's tag
ARGV[1] base        derives base .. 'queue:' .. queue (hash), base .. 'queues' (zset), base .. 'wheel:' .. queue (zset),
                    base .. 'ready' (zset)                          same tag as KEYS[1]
ARGV[2] pump        who calls
ARGV[3] number      number of this call: repeated, it answers as before
ARGV[4] offset_ms   '' in production; tests move time with it
ARGV[5] queue       whose
ARGV[6] version     of these settings; an older one than stands here changes nothing
ARGV[7] paused      '0' | '1'
RETURNS 1 if the copy changed, else 0
MOVES   -
COST    O(log queues)
]]
if last then return last end

local queue, version, paused = ARGV[5], tonumber(ARGV[6]), ARGV[7] == '1'
local copy = call('HMGET', base .. 'queue:' .. queue, 'version', 'paused')
touched[base .. 'queue:' .. queue] = true
local changed = 0
if not copy[1] or tonumber(copy[1]) < version then
  changed = 1
  write('HSET', base .. 'queue:' .. queue, 'version', ARGV[6], 'paused', ARGV[7])
  add(base .. 'queues', 0, queue)
  local was_paused = copy[2] == '1'
  local front = call('ZRANGE', base .. 'wheel:' .. queue, 0, 0)[1]
  if front and paused and not was_paused then
    remove(base .. 'ready', queue)
  elseif front and was_paused and not paused then
    local priority = string.match(front, '^%d+')
    add(base .. 'ready', priority, queue)
    hint('ready ' .. priority .. ' ' .. queue)
  end
end
return commit(cmsgpack.pack(changed))
