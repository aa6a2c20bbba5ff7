--[[ prune_callers: forget the last calls of pumps that have not called for long.

KEYS[1] calls       hash   last call of each pump; the declared key that carries the shard's tag
ARGV[1] base        same tag as KEYS[1]
ARGV[2] pump        who calls
ARGV[3] number      number of this call: repeated, it answers as before
ARGV[4] offset_ms   '' in production; tests move time with it
ARGV[5] idle_ms     how long is long
ARGV[6] cursor      where the last call stopped, '0' at first
RETURNS the cursor to go on from; '0' when all were seen
MOVES   -
COST    O(500)
]]
if last then return last end

local page = call('HSCAN', calls, ARGV[6], 'COUNT', 500)
touched[calls] = true
local before = now - tonumber(ARGV[5])
for i = 1, #page[2], 2 do
  local at = tonumber(string.match(page[2][i + 1], '^%d+ (%d+) '))
  if not at or at < before then ending('HDEL', calls, page[2][i]) end
end
return commit(cmsgpack.pack(page[1]))
