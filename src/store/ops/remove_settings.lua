--[[ remove_settings: marks the master copy of a queue's settings as removed, or deletes a marked one.

A marked copy is kept until no shard can have an older copy any more: a server that has read the settings before they were
removed may still apply them.

KEYS    settings:<queue>, settings_index
ARGV[5] queue       name
ARGV[6] kept_ms     for how long a marked copy is kept; '': mark it
ARGV[7…] fields     name, default, … of settings.rs, if it is marked
RETURNS the version of the removal; 0 if there are no settings, they are not marked, or not for `kept_ms`
MOVES   -
COST    O(log queues)
]]
local answer = open_call()
if answer then return answer end

local key, index = base .. 'settings:' .. ARGV[5], base .. 'settings_index'
local copy = call('HMGET', key, 'version', 'removed_at')
local version, removed_at = tonumber(copy[1] or 0), tonumber(copy[2])
if ARGV[6] == '' then
  if copy[1] and not removed_at then
    version = version + 1
    write('HSET', key, 'version', version, 'removed_at', digits(now), unpack(ARGV, 7))
  end
elseif removed_at and removed_at + tonumber(ARGV[6]) <= now then
  zset_remove(index, ARGV[5])
  write_last('DEL', key)
else
  version = 0
end
return commit(version)
