--[[ set_settings: changes a setting in the master copy of a queue's settings, which the first shard holds.

KEYS    settings:<queue>, settings_index
ARGV[5] queue       name
ARGV[6] field       of settings.rs
ARGV[7] value
RETURNS the new version of the settings
MOVES   -
COST    O(log queues)
]]
if last_reply then return last_reply end

local key = base .. 'settings:' .. ARGV[5]
local version = tonumber(call('HGET', key, 'version') or 0) + 1
touched[key] = true
write('HSET', key, 'version', version, ARGV[6], ARGV[7])
zset_add(base .. 'settings_index', 0, ARGV[5])
return commit(version)
