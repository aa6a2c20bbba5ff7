--[[ set_settings: write the master copy of a queue's settings. Only the first shard holds it.

KEYS[1] calls       hash   last call of each pump; the declared key that carries the shard's tag
ARGV[1] base        derives base .. 'settings:' .. queue (hash), base .. 'configured' (zset)
                                                                    same tag as KEYS[1]
ARGV[2] pump        who calls
ARGV[3] number      number of this call: repeated, it answers as before
ARGV[4] offset_ms   '' in production; tests move time with it
ARGV[5] queue       whose
ARGV[6] paused      '0' | '1'
RETURNS the version of the settings as they now stand
MOVES   -
COST    O(log queues)
]]
if last then return last end

local key = base .. 'settings:' .. ARGV[5]
local version = tonumber(call('HGET', key, 'version') or 0) + 1
touched[key] = true
write('HSET', key, 'version', version, 'paused', ARGV[6])
add(base .. 'configured', 0, ARGV[5])
return commit(cmsgpack.pack(version))
