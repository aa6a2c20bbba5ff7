--[[ set_settings: changes a setting in the master copy of a queue's settings, which the first shard holds.

KEYS    settings:<queue>, settings_index
ARGV[5] queue       name
ARGV[6] field       of settings.rs
ARGV[7] value
RETURNS the new version of the settings
MOVES   -
COST    O(log queues)
]]
local answer = open_call()
if answer then return answer end

local key = base .. 'settings:' .. ARGV[5]
local copy = call('HMGET', key, 'version', 'removed_at')
local version = tonumber(copy[1] or 0) + 1
local command = { 'HSET', key, 'version', version, ARGV[6], ARGV[7] }
if copy[2] then set_field(command, 'removed_at', '') end
writes[#writes + 1] = command
zset_add(base .. 'settings_index', 0, ARGV[5])
return commit(version)
