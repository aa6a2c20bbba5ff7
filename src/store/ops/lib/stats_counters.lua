-- stats_counters: counters for the throughput model.
--
-- Each caller keeps the counters of the current 5 s in the record of its last call, so counting costs no command. Those of
-- earlier 5 s go into a bucket that all callers share. A reader adds both.
--
-- defines: new_counters
-- needs: prelude, clock, transaction, counter_entries, flush_counters
-- sets: stage_counters, which adds the call's counters to the caller's
-- keys: callers

-- With more entries or bytes the caller's counters go into the bucket at once: reading them would cost each call more.
local MAX_ENTRIES, MAX_BYTES = 16, 4096
-- Counters of this call: number of their kind (see layout.rs) -> queue -> counter.
local new_counters = {}

stage_counters = function()
  local counted, at, entries, number = counters, 1, '', 0
  if counted ~= '' and math.floor(counted_at / BUCKET_MS) ~= math.floor(now / BUCKET_MS) then
    flush_counters(counted)
    counted = ''
  end
  -- An entry of an earlier call is added to the counter of this call, or kept if there is none.
  while at <= #counted do
    local kind, queue, bytes, from = struct.unpack(ENTRY, counted, at)
    local of_kind, entry_at = new_counters[kind], at
    local counter = of_kind and of_kind[queue]
    at = from + bytes
    if not counter then
      entries, number = entries .. string.sub(counted, entry_at, at - 1), number + 1
    elseif kind == L.call.counter.submitted then
      of_kind[queue] = counter + struct.unpack('>I6', counted, from)
    elseif kind == L.call.counter.lease_ends then
      local completed, failed, released, expired, held_ms, returned = struct.unpack(LEASE_ENDS, counted, from)
      of_kind[queue] = { counter[1] + completed, counter[2] + failed, counter[3] + released, counter[4] + expired, counter[5] + held_ms,
        counter[6] + returned }
    else
      for name, n in pairs(cmsgpack.unpack(string.sub(counted, from, at - 1))) do counter[name] = (counter[name] or 0) + n end
    end
  end
  for kind, by_queue in pairs(new_counters) do
    for queue, counter in pairs(by_queue) do
      local packed
      if kind == L.call.counter.submitted then
        packed = struct.pack('>I6', counter)
      elseif kind == L.call.counter.lease_ends then
        packed = struct.pack(LEASE_ENDS, unpack(counter))
      else
        packed = cmsgpack.pack(counter)
      end
      entries, number = entries .. struct.pack(ENTRY, kind, #queue, queue, #packed) .. packed, number + 1
    end
  end
  if number > MAX_ENTRIES or #entries > MAX_BYTES then
    counted_at = now
    flush_counters(entries)
    entries = ''
  end
  counters, counted_at = entries, now
end
