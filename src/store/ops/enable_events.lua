--[[ enable_events: has scripts publish the transitions of tasks on channel `events` for a while.

ARGV[5] for_s       for how long, in seconds
RETURNS the id of the current uninterrupted period of publishing. If a subscriber knows another id, or none, it may have
        missed events.
MOVES   -
COST    O(1)
]]
local answer = open_call()
if answer then return answer end

local period = events_raw and string.match(events_raw, ' (.+)$') or caller .. '-' .. ARGV[3]
set_field(callers_command, 'events', digits(math.floor(shard_ms / 1000) + ARGV[5]) .. ' ' .. period)
return commit(period)
