-- call: what every mutating script begins with. ARGV[1..4] are read here: base, pump, number, offset_ms.
--
-- A pump's calls never overlap, so its last one is all there is to remember: `last`, if its number is this call's,
-- is the packed answer to give again.
local call, ARGV = redis.call, ARGV
local calls, base, pump, number = KEYS[1], ARGV[1], ARGV[2], ARGV[3]
local last
do
  local record = call('HGET', calls, pump)
  if record then
    local of = string.match(record, '^%d+')
    if of == number then last = string.match(record, '^%d+ %d+ (.*)$') end
    -- A sending of an earlier call that was slow on its way must not run after a later one.
    if tonumber(of) > tonumber(number) then return redis.error_reply('OVERTAKEN a later call of this pump has run') end
  end
end
local clock = call('TIME')
local now = clock[1] * 1000 + math.floor(clock[2] / 1000) + (tonumber(ARGV[4]) or 0)

-- A whole number as decimal digits; `..` alone would keep 14 of them. What is written more than once is turned into
-- digits here once: Redis would do so each time, and slower.
local function digits(n)
  return string.format('%d', n)
end
local now_digits = digits(now)
