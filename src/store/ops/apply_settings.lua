--[[ apply_settings: brings a shard's copy of a queue's settings up to a version of the master copy.

KEYS    settings_copy:<queue>, queues, count:<queue>, wheel:<queue>, ready
ARGV[5] queue       name
ARGV[6] version     of these settings; an older one than the copy's changes nothing
ARGV[7…] fields     name, value, … of settings.rs; none: the settings were removed, and so is the copy
RETURNS 1 if the copy changed, else 0
MOVES   -
COST    O(log queues)
]]
if last_reply then return last_reply end

local queue, version = ARGV[5], tonumber(ARGV[6])
local settings = {}
for i = 7, #ARGV, 2 do settings[ARGV[i]] = ARGV[i + 1] end
local paused = settings.paused == '1'
local key = base .. 'settings_copy:' .. queue
local copy = call('HMGET', key, 'version', 'paused')
touched[key] = true
local changed, is_removed = 0, #ARGV < 7
local is_behind = not copy[1] and not is_removed
if copy[1] then is_behind = tonumber(copy[1]) < version end
if is_behind then
  changed = 1
  if is_removed then
    if call('EXISTS', base .. 'count:' .. queue) == 0 then zset_remove(base .. 'queues', queue) end
    write_last('DEL', key)
  else
    write('HSET', key, 'version', ARGV[6], unpack(ARGV, 7))
    zset_add(base .. 'queues', 0, queue)
  end
  local was_paused = copy[2] == '1'
  local front = call('ZRANGE', base .. 'wheel:' .. queue, 0, 0)[1]
  if front and paused and not was_paused then
    zset_remove(base .. 'ready', queue)
  elseif front and was_paused and not paused then
    local priority = string.match(front, '^%d+')
    zset_add(base .. 'ready', priority, queue)
    notify('ready ' .. priority .. ' ' .. queue)
  end
end
return commit(changed)
