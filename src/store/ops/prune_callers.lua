--[[ prune_callers: drops the records of callers that have not called for long.

KEYS    callers
ARGV[5] idle_ms     how long a caller must have been idle
ARGV[6] cursor      returned by the previous call; '0' at first
RETURNS the cursor of the next call; '0' when all callers were read
MOVES   -
COST    O(500)
]]
local answer = open_call()
if answer then return answer end

local cursor, records = unpack(call('HSCAN', callers, ARGV[6], 'COUNT', 500))
local idle_since = now - tonumber(ARGV[5])
for i = 1, #records, 2 do
  local name, record, called_at = records[i], records[i + 1], 0
  if #record >= L.call.bytes and string.byte(record) == L.call.version then
    local _, _, time = struct.unpack(L.call.format, record)
    called_at = time
  end
  if string.match(name, '^%x+$') and called_at < idle_since then write_last('HDEL', callers, name) end
end
return commit(cursor)
