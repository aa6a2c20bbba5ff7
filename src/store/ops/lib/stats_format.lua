-- stats_format: the form of the throughput model's counters: per queue and 5 s of Redis' clock
--   submitted   number of tasks
--   waits       total_ms: time that claimed tasks had been ready; bucket of that time -> number of tasks
--   lease_ends  leases completed, failed, released, expired; their time in all, in ms; those whose task waits again
--
-- defines: BUCKET_MS, add_counter, unpack_pending
local BUCKET_MS = 5000

-- Adds `more` to `sum` (nil: nothing), which it may change, and returns the sum.
local function add_counter(sum, more)
  if type(more) == 'number' then return (sum or 0) + more end
  sum = sum or {}
  for name, n in pairs(more) do sum[name] = (sum[name] or 0) + n end
  return sum
end

-- Reads a caller's pending counters: their bucket, and the counters by name and queue; nil if there are none.
local function unpack_pending(record)
  if not record or #record <= L.call.bytes or string.byte(record) ~= L.call.version then return nil end
  local _, _, time, behind = struct.unpack(L.call.format, record)
  return math.floor(time / BUCKET_MS), cmsgpack.unpack(string.sub(record, behind))
end
