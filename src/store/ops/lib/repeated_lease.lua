-- repeated_lease: the leases that a repeated call returns again.
--
-- defines: live_until
-- needs: clock, outages

-- Returns the end of a lease by its record; nil if `token` does not hold it, or if it has ended.
local function live_until(lease, token)
  local _, lease_token, lease_until, leased_at, lease_set_at = struct.unpack(L.lease.format, lease)
  if lease_token ~= token then return nil end
  if lease_until <= now then
    lease_until = lease_end({ [F.leased_at] = leased_at, [F.lease_set_at] = lease_set_at }, lease_until)
  end
  return lease_until > now and lease_until or nil
end
