--[[ prune_callers: drops the records of callers that have not called for long.

KEYS    callers
ARGV[5] idle_ms     how long a caller must have been idle
ARGV[6] cursor      returned by the previous call; '0' at first
RETURNS the cursor of the next call; '0' when all callers were read
MOVES   -
COST    O(500)
]]
if last_reply then return last_reply end

local cursor, records = unpack(call('HSCAN', callers, ARGV[6], 'COUNT', 500))
touched[callers] = true
local idle_since = now - tonumber(ARGV[5])
for i = 1, #records, 2 do
  local called_at = tonumber(string.match(records[i + 1], '^%d+ (%d+) '))
  if records[i] ~= 'clock' and (not called_at or called_at < idle_since) then write_last('HDEL', callers, records[i]) end
end
return commit(cursor)
