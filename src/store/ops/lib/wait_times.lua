-- wait_times: counts for how long claimed tasks had been ready.
--
-- defines: record_wait
-- needs: stats_counters
local waits = {}
new_counters[L.call.counter.waits] = waits

-- Adds `number` tasks of the queue that waited `ms` each. An octave has 16 buckets, as in domain/histogram.rs.
local function record_wait(queue, ms, number)
  local bucket = ms
  if ms >= 16 then
    local _, octave = math.frexp(ms)
    bucket = 16 * (octave - 5) + math.floor(ms / 2 ^ (octave - 5))
  end
  local histogram = waits[queue]
  if not histogram then
    waits[queue] = { total_ms = ms * number, [bucket] = number }
    return
  end
  histogram.total_ms = histogram.total_ms + ms * number
  histogram[bucket] = (histogram[bucket] or 0) + number
end
