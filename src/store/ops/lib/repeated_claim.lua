-- repeated_claim: the leases of a repeated claim, without those that have ended.
--
-- defines: the end of define_repetition(), which returns a function
-- needs: open_call, wheel_reader, repeated_lease
-- keys: task:<id>

-- Returns a lease again, as lease_ready does; nil if it has ended. `token` is the index of `token_bytes`.
return function(waiter, token, token_bytes, queue, id)
  local state, document, placement, lease, expires_at, progress = read_claimable(base .. 'task:' .. id, true)
  local lease_until = state == 'leased' and lease and live_until(lease, token_bytes)
  if not lease_until then return nil end
  return { waiter, token, id, lease_until, queue, placement, document, progress or '', expires_at or '' }
end
