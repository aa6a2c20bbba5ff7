--[[ touch_clock: moves the last touch of the shard's clock on, if the clock agrees with it. The first touch confirms the clock.

KEYS    callers
RETURNS {'touched', time, shift_ms} | {'unconfirmed', time, shift_ms, last touch, record for confirm_clock}; times by the
        shard's clock in ms, without the offset of tests
MOVES   -
COST    O(1)
]]
if last_reply then return last_reply end

local shift, reply = tonumber(shift_ms) or 0, nil
if is_confirmed then
  -- The clock does not go back.
  local time = math.max(shard_ms, tonumber(touched_at) or 0)
  caller_field, caller_value = 'clock', digits(time) .. ' ' .. digits(shift) .. ' ' .. (string.match(clock_record or '', '%d+$') or '0')
  reply = { 'touched', time, shift }
else
  reply = { 'unconfirmed', shard_ms, shift, tonumber(touched_at), clock_record }
end
return commit(reply)
