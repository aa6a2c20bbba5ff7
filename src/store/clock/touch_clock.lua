--[[ touch_clock: moves the last touch of the shard's clock on, if the clock agrees with it. The first touch confirms the clock.

KEYS    callers
RETURNS {'touched', time, shift_ms} | {'unconfirmed', time, shift_ms, last touch, record for confirm_clock}; times by the
        shard's clock in ms, without the offset of tests
MOVES   -
COST    O(1)
]]
local answer = open_call()
if answer then return answer end

local reply
if is_confirmed then
  -- The clock does not go back.
  local time = math.max(shard_ms, touched_at or 0)
  touch(time, shift_ms, shifted_at)
  reply = { 'touched', time, shift_ms }
else
  reply = { 'unconfirmed', shard_ms, shift_ms, touched_at, clock_record }
end
return commit(reply)
