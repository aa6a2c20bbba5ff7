-- flush_counters: moves a caller's counters into their bucket, which few calls do.
--
-- Counters go into a bucket by queue and, under the empty name, for the shard. A bucket expires when no window reaches back to
-- it.
--
-- defines: the body of flush_counters(entries); entries: as a caller has them, see stats_format
-- needs: prelude, clock, transaction, counter_entries, stats_format
-- keys: stats:<bucket>
local BUCKET_TTL_MS = 920000
local bucket, pending = math.floor(counted_at / BUCKET_MS), unpack_counters(entries)
if math.floor(now / BUCKET_MS) - bucket >= BUCKET_TTL_MS / BUCKET_MS then return end
local fields, additions = {}, {}
for name, by_queue in pairs(pending) do
  local of_shard
  for queue, counter in pairs(by_queue) do
    fields[#fields + 1] = queue .. ':' .. name
    additions[#fields] = counter
    of_shard = add_counter(of_shard, counter)
  end
  if of_shard then
    fields[#fields + 1] = ':' .. name
    additions[#fields] = of_shard
  end
end
local key, is_new = base .. 'stats:' .. digits(bucket), true
local command = { 'HSET', key }
for i, packed in ipairs(call('HMGET', key, unpack(fields))) do
  if packed then is_new = false end
  command[2 * i + 1] = fields[i]
  command[2 * i + 2] = cmsgpack.pack(packed and add_counter(cmsgpack.unpack(packed), additions[i]) or additions[i])
end
writes[#writes + 1] = command
if is_new then write('PEXPIRE', key, BUCKET_TTL_MS) end
