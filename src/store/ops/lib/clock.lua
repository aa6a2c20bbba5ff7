-- clock: the time of this call, by Redis' clock, read once.
--
-- defines: clock (as TIME returns it), now (ms), now_digits, digits(n)
-- needs: prelude or read_prelude
local clock = call('TIME')
local now = clock[1] * 1000 + math.floor(clock[2] / 1000) + (tonumber(offset_ms) or 0)

-- Returns an integer in decimal; `..` and tostring keep 14 digits only. A number that is written more than once is
-- converted once, here: Redis converts it again for each use, and more slowly.
local function digits(n)
  return string.format('%d', n)
end
local now_digits = digits(now)
