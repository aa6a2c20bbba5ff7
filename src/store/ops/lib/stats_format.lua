-- stats_format: the form of the throughput model's counters: per queue and 5 s of Redis' clock
--   submitted   number of tasks
--   waits       total_ms: time that claimed tasks had been ready; bucket of that time -> number of tasks
--   lease_ends  leases completed, failed, released, expired; their time in all, in ms; those whose task waits again
-- A bucket has them as MessagePack, a caller as entries.
--
-- defines: add_counter, unpack_counters
-- needs: counter_entries

-- Adds `more` to `sum` (nil: nothing), which it may change, and returns the sum.
local function add_counter(sum, more)
  if type(more) == 'number' then return (sum or 0) + more end
  sum = sum or {}
  for name, n in pairs(more) do sum[name] = (sum[name] or 0) + n end
  return sum
end

-- Reads a caller's counters: returns them by name and queue.
local function unpack_counters(entries)
  local pending, at = { submitted = {}, lease_ends = {}, waits = {} }, 1
  while at <= #entries do
    local kind, queue, bytes, from = struct.unpack(ENTRY, entries, at)
    at = from + bytes
    if kind == L.call.counter.submitted then
      pending.submitted[queue] = struct.unpack('>I6', entries, from)
    elseif kind == L.call.counter.lease_ends then
      pending.lease_ends[queue] = { struct.unpack(LEASE_ENDS, entries, from) }
      pending.lease_ends[queue][7] = nil
    else
      pending.waits[queue] = cmsgpack.unpack(string.sub(entries, from, at - 1))
    end
  end
  return pending
end
