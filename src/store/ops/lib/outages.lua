-- outages: prolongs leases by the outages in which no heartbeat could be taken.
--
-- A lease that was alive when an outage began is prolonged by its length, from the time at which the lease was set. The
-- outages are read only for a lease that seems to have ended, so a live lease costs no command.
--
-- defines: prolong, lease_end
-- needs: prelude, clock, transaction
-- keys: outages
local outages
local function read_outages()
  if not outages then
    outages = call('ZRANGE', base .. 'outages', 0, -1)
    touched[base .. 'outages'] = true
  end
  return outages
end

-- Returns the end of a lease that was set at `set_at` and lasts until `lease_until`, prolonged by the outages since; and the
-- time until which outages are counted.
local function prolong(lease_until, set_at)
  local counted_until = set_at
  for _, outage in ipairs(read_outages()) do
    local from, ended = string.match(outage, '^(%d+) (%d+)$')
    from, ended = math.max(tonumber(from), counted_until), tonumber(ended)
    if lease_until <= from then break end
    if ended > from then lease_until, counted_until = lease_until + ended - from, ended end
  end
  return lease_until, counted_until
end

-- Returns the same for the lease of the task. Outages are counted only if the lease seems to have ended.
local function lease_end(task)
  local lease_until = tonumber(task[F.lease_until])
  if lease_until > now or #read_outages() == 0 then return lease_until, now end
  local leased_at, set_at = unpack(call('HMGET', task.key, F.leased_at, F.lease_set_at))
  return prolong(lease_until, math.max(tonumber(leased_at) or 0, tonumber(set_at) or 0))
end
