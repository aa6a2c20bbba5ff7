--[[ apply_settings: brings a shard's copy of a queue's settings up to a version of the master copy.

KEYS    settings_copy:<queue>, queues
ARGV[5] queue       name
ARGV[6] version     of these settings; an older one than the copy's changes nothing
ARGV[7…] fields     name, value, … of settings.rs; none: the settings were removed, and so is the copy
RETURNS 1 if the copy changed, else 0
MOVES   -
COST    O(log queues)
]]
local answer = open_call({ ARGV[5] })
if answer then return answer end

local queue, version = ARGV[5], tonumber(ARGV[6])
local settings = {}
for i = 7, #ARGV, 2 do settings[ARGV[i]] = ARGV[i + 1] end
local paused = settings.paused == '1'
local key = base .. 'settings_copy:' .. queue
local version_before = call('HGET', key, 'version')
local changed, is_removed = 0, #ARGV < 7
local is_behind = not version_before and not is_removed
if version_before then is_behind = tonumber(version_before) < version end
if is_behind then
  changed = 1
  local record = record_of(queue)
  local was_paused, is_unused = is_paused(record), record[L.queue.submitted] == 0
  if is_removed then
    if is_unused then zset_remove(base .. 'queues', queue) end
    write_last('DEL', key)
  else
    -- Behind the record: the next attempt repeats a script that was stopped between them.
    write_last('HSET', key, 'version', ARGV[6], unpack(ARGV, 7))
    zset_add(base .. 'queues', 0, queue)
  end
  if was_paused ~= paused then
    -- Scripts obey the record, not the copy.
    record[L.queue.flags] = record[L.queue.flags] + (paused and 1 or -1)
    record[L.queue.behind] = true
    local front = front_of(record)
    if front and was_paused then notify('ready ' .. front .. ' ' .. queue) end
  end
  if is_removed and is_unused then
    record[L.queue.behind] = false
    write_last('HDEL', callers, 'queue:' .. queue)
  end
end
return commit(changed)
