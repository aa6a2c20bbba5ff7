--[[ stats: returns the throughput counters of a window of whole buckets, of one queue or of the whole shard.

KEYS    stats:<bucket>
ARGV[3] queue       name; '' for the whole shard
ARGV[4] buckets     number
ARGV[5] last        the last bucket; '' for the last one that is whole
RETURNS {last, submitted, {leases completed, failed, released, expired, their time in all in ms, those whose task waits again},
        {time waited in all in ms, bucket, number, …}} | {'incomplete'} if the shard's clock was shifted during the window: Redis
        may have dropped counters
MOVES   -
COST    O(buckets + callers + queues)
]]
-- A second after its end a bucket is whole also by the clocks of other shards, which may be behind.
local last = tonumber(ARGV[5]) or math.floor((now - 1000) / BUCKET_MS) - 1
local first, queue = last - ARGV[4] + 1, ARGV[3]
if first * BUCKET_MS < (shifted_at or 0) then return cmsgpack.pack({ 'incomplete' }) end
local sums = { submitted = 0, lease_ends = { 0, 0, 0, 0, 0, 0 }, waits = { total_ms = 0 } }
for bucket = first, last do
  local names = { 'submitted', 'lease_ends', 'waits' }
  local packed = call('HMGET', base .. 'stats:' .. digits(bucket), queue .. ':submitted', queue .. ':lease_ends', queue .. ':waits')
  for i, name in ipairs(names) do
    if packed[i] then sums[name] = add_counter(sums[name], cmsgpack.unpack(packed[i])) end
  end
end
-- Callers hold counters of that time that are in no bucket yet.
for _, field in ipairs(call('HKEYS', callers)) do
  local record, bucket = string.match(field, '^%x+$') and call('HGET', callers, field) or '', nil
  local is_readable = #record > L.call.bytes and string.byte(record) == L.call.version
  local _, _, _, time, bytes, behind = struct.unpack(L.call.format, is_readable and record or string.rep('\0', L.call.bytes))
  bucket = math.floor(time / BUCKET_MS)
  if bytes > 0 and bucket >= first and bucket <= last then
    for name, by_queue in pairs(unpack_counters(string.sub(record, behind, behind + bytes - 1))) do
      for of_queue, counter in pairs(by_queue) do
        if queue == '' or queue == of_queue then sums[name] = add_counter(sums[name], counter) end
      end
    end
  end
end
local waits = { sums.waits.total_ms }
for bucket, number in pairs(sums.waits) do
  if bucket ~= 'total_ms' then
    waits[#waits + 1] = bucket
    waits[#waits + 1] = number
  end
end
return cmsgpack.pack({ last, sums.submitted, sums.lease_ends, waits })
