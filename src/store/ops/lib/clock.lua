-- clock: the time of this call by the shard's clock, read once. The shard's clock is Redis' clock and a shift.
--
-- The field `clock` of `callers` has the time of the last touch; once there was a shift also the shift in ms, and the time
-- at which it was last changed. A touch confirms the clock: a server has compared it with a clock of its own that is never
-- set (touch_clock, confirm_clock). Between two touches an unconfirmed clock shows an outage, or that Redis' clock was set.
-- Without the field, the clock is confirmed, and there is no shift.
--
-- defines: MAX_GAP_MS, MAX_SETBACK_MS, digits(n), read_clock; once it has been read: touched_at, shift_ms, shifted_at (nil:
--   never); shard_ms (the time without the offset of tests), is_confirmed, now (ms)
-- needs: prelude or read_prelude
local touched_at, shift_ms, shifted_at, shard_ms, is_confirmed, now
-- Servers touch the clock each second: without a touch for longer, there is an outage.
local MAX_GAP_MS = 2000
-- A clock further behind its last touch was set.
local MAX_SETBACK_MS = 500

-- Returns an integer in decimal; `..` and tostring keep 14 digits only. A number that is written more than once is
-- converted once, here: Redis converts it again for each use, and more slowly.
local function digits(n)
  return string.format('%d', n)
end

local function read_clock()
  touched_at, shift_ms, shifted_at = tonumber(clock_record), 0, nil
  if clock_record and not touched_at then
    touched_at, shift_ms, shifted_at = string.match(clock_record, '^(%d+) (-?%d+) (%d+)$')
    touched_at, shift_ms, shifted_at = tonumber(touched_at), tonumber(shift_ms) or 0, tonumber(shifted_at)
  end
  local time = call('TIME')
  shard_ms = time[1] * 1000 + math.floor(time[2] / 1000) + shift_ms
  now = shard_ms + (tonumber(offset_ms) or 0)
  is_confirmed = not touched_at or shard_ms - touched_at <= MAX_GAP_MS and touched_at - shard_ms <= MAX_SETBACK_MS
end
