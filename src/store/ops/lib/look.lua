-- look: what a script that only reads begins with, where it uses the fragments of those that write. ARGV[1..2]: base, offset_ms.
local call, base = redis.call, ARGV[1]
local clock = call('TIME')
local now = clock[1] * 1000 + math.floor(clock[2] / 1000) + (tonumber(ARGV[2]) or 0)

-- A whole number as decimal digits; `..` alone would keep 14 of them.
local function digits(n)
  return string.format('%d', n)
end
