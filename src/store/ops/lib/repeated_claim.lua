-- repeated_claim: the reply to a repeated claim: the same leases, without those that have ended.
--
-- defines: the end of define_repetition(), which returns a function that returns the packed reply
-- needs: open_call, wheel_reader, repeated_lease
-- keys: task:<id>

-- `tokens_at`: the place in ARGV in front of the tokens.
return function(tokens_at)
  local handouts = {}
  for from = 1, #last_reply, 22 do
    local waiter, token, queue, id = struct.unpack('>I2I2I2c16', last_reply, from)
    local state, document, placement, lease, expires_at, progress = read_claimable(base .. 'task:' .. id, true)
    local lease_until = state == 'leased' and lease and live_until(lease, ARGV[tokens_at + token])
    if lease_until then
      handouts[#handouts + 1] = { waiter, token, id, lease_until, queue, placement, document, progress or '', expires_at or '' }
    end
  end
  return cmsgpack.pack({ 1, 0, handouts, {}, {} })
end
