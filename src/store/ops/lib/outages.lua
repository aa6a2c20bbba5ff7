-- outages: prolongs leases by the outages in which no heartbeat could be taken.
--
-- A lease that was alive when an outage began is prolonged by its length, from the time at which the lease was set. The
-- outages are read only for a lease that seems to have ended, so a live lease costs no command.
--
-- defines: lease_end
-- needs: prelude, clock, transaction
-- keys: outages
local outages

-- Returns the end of a lease of the task that lasts until `lease_until`, prolonged by the outages since it was set; and the
-- time until which outages are counted. `set_at` nil: the lease is the task's.
local function lease_end(task, lease_until, set_at)
  if not outages then
    outages = call('ZRANGE', base .. 'outages', 0, -1)
  end
  if #outages == 0 then return lease_until, now end
  set_at = set_at or math.max(task[F.leased_at], task[F.lease_set_at])
  for _, outage in ipairs(outages) do
    local from, ended = string.match(outage, '^(%d+) (%d+)$')
    from, ended = math.max(tonumber(from), set_at), tonumber(ended)
    if lease_until <= from then break end
    if ended > from then lease_until, set_at = lease_until + ended - from, ended end
  end
  return lease_until, set_at
end
