--[[ stats: what was counted in a window of whole buckets, of one queue or of the whole shard.

KEYS[1] calls       hash   the declared key that carries the shard's tag
ARGV[1] base        derives base .. 'stats:' .. bucket (hash)       same tag as KEYS[1]
ARGV[2] offset_ms   '' in production; tests move time with it
ARGV[3] queue       '' for the whole shard
ARGV[4] buckets     how many
ARGV[5] last        the last of them, '' for the last that is whole
RETURNS {last, submitted, {leases completed, failed, released, run out, their ms in all}, {waiting ms in all, class, number, …}}
MOVES   -
COST    O(buckets)
]]
-- A second after its end it is whole also by the clocks of other shards, which may be behind this one's.
local to = tonumber(ARGV[5]) or math.floor((now - 1000) / 5000) - 1
local submitted, ends, waited = 0, { 0, 0, 0, 0, 0 }, { ms = 0 }
for bucket = to - ARGV[4] + 1, to do
  local sums = call('HMGET', base .. 'stats:' .. digits(bucket), ARGV[3] .. ':submitted', ARGV[3] .. ':ends', ARGV[3] .. ':waited')
  if sums[1] then submitted = submitted + cmsgpack.unpack(sums[1]) end
  if sums[2] then
    for i, n in ipairs(cmsgpack.unpack(sums[2])) do ends[i] = ends[i] + n end
  end
  if sums[3] then
    for what, n in pairs(cmsgpack.unpack(sums[3])) do waited[what] = (waited[what] or 0) + n end
  end
end
local waits = { waited.ms }
for class, number in pairs(waited) do
  if class ~= 'ms' then
    waits[#waits + 1] = class
    waits[#waits + 1] = number
  end
end
return cmsgpack.pack({ to, submitted, ends, waits })
