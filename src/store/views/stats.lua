--[[ stats: what was counted in a window of whole buckets, of one queue or of the whole shard.

KEYS[1] calls       hash   last call of each pump, and what it has at hand; the declared key that carries the shard's tag
ARGV[1] base        derives base .. 'stats:' .. bucket (hash)       same tag as KEYS[1]
ARGV[2] offset_ms   '' in production; tests move time with it
ARGV[3] queue       '' for the whole shard
ARGV[4] buckets     how many
ARGV[5] last        the last of them, '' for the last that is whole
RETURNS {last, submitted, {leases completed, failed, released, run out, their ms in all}, {waiting ms in all, class, number, …}}
MOVES   -
COST    O(buckets + pumps)
]]
-- A second after its end it is whole also by the clocks of other shards, which may be behind this one's.
local to = tonumber(ARGV[5]) or math.floor((now - 1000) / BUCKET_MS) - 1
local from, queue, sums = to - ARGV[4] + 1, ARGV[3], { submitted = 0, ends = { 0, 0, 0, 0, 0 }, waited = { ms = 0 } }
for bucket = from, to do
  local key = base .. 'stats:' .. digits(bucket)
  local packed = call('HMGET', key, queue .. ':submitted', queue .. ':ends', queue .. ':waited')
  for i, name in ipairs({ 'submitted', 'ends', 'waited' }) do
    if packed[i] then sums[name] = add_to(sums[name], cmsgpack.unpack(packed[i])) end
  end
end
-- And what pumps have at hand of that time.
for _, field in ipairs(call('HKEYS', KEYS[1])) do
  local of, by_name = at_hand_of(string.sub(field, -5) == ':sums' and call('HGET', KEYS[1], field))
  if of and of >= from and of <= to then
    for name, by_queue in pairs(by_name) do
      for of_queue, sum in pairs(by_queue) do
        if queue == '' or queue == of_queue then sums[name] = add_to(sums[name], sum) end
      end
    end
  end
end
local waits = { sums.waited.ms }
for class, number in pairs(sums.waited) do
  if class ~= 'ms' then
    waits[#waits + 1] = class
    waits[#waits + 1] = number
  end
end
return cmsgpack.pack({ to, sums.submitted, sums.ends, waits })
