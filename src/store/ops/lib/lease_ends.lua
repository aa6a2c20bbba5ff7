-- lease_ends: counts the ends of leases.
--
-- defines: count_lease_end
-- needs: stats_counters
local lease_ends = {}
new_counters[L.call.counter.lease_ends] = lease_ends

-- Counts the end of a lease by its `outcome`: 1 completed, 2 failed, 3 released, 4 expired. `returns`: its task waits again.
local function count_lease_end(queue, outcome, held_ms, returns)
  local ends = lease_ends[queue]
  if not ends then
    ends = { 0, 0, 0, 0, 0, 0 }
    lease_ends[queue] = ends
  end
  ends[outcome] = ends[outcome] + 1
  if held_ms > 0 then ends[5] = ends[5] + held_ms end
  if returns then ends[6] = ends[6] + 1 end
end
