--[[ enable_events: has scripts publish the transitions of tasks on channel `events` for a while.

KEYS    events_enabled
ARGV[5] for_s       for how long, in seconds
RETURNS the id of the current uninterrupted period of publishing. If a subscriber knows another id, or none, it may have
        missed events.
MOVES   -
COST    O(1)
]]
if last_reply then return last_reply end

local key = base .. 'events_enabled'
local period = events and string.match(events_enabled, ' (.+)$') or caller .. '-' .. sequence
-- Redis deletes the key some time after its content has lapsed.
write('SET', key, digits(math.floor(shard_ms / 1000) + ARGV[5]) .. ' ' .. period, 'EX', digits(4 * ARGV[5]))
touched[key] = true
return commit(period)
