--[[ confirm_clock: confirms the shard's clock with a shift, and records the outage since its last touch. It changes nothing if
another server was faster, or if Redis' clock was set since the server has read it.

KEYS    callers, outages
ARGV[5] record      of the clock, which the server has judged
ARGV[6] read_ms     time by the shard's clock that the server has judged; '' if it has judged none
ARGV[7] shift_ms    between Redis' clock and the shard's from now on
ARGV[8] keep_ms     how long an outage is kept
ARGV[9] max         number of outages kept
RETURNS {'confirmed', time by the shard's clock in ms, length of the outage in ms or 0} | {'changed'}
MOVES   -
COST    O(max)
]]
local answer = open_call()
if answer then return answer end

local shift, since_read_ms = tonumber(ARGV[7]), shard_ms - (tonumber(ARGV[6]) or shard_ms)
local key, reply = base .. 'outages', { 'changed' }
if touched_at and clock_record == ARGV[5] and since_read_ms >= -MAX_SETBACK_MS and since_read_ms <= MAX_GAP_MS then
  local offset, time = now - shard_ms, shard_ms - shift_ms + shift
  if shift ~= shift_ms then shifted_at = time end
  touch(time, shift, shifted_at)
  local outage_ms = time - touched_at
  if outage_ms <= MAX_GAP_MS then outage_ms = 0 end
  if outage_ms > 0 then
    local outages = call('ZRANGE', key, 0, -1)
    for i, outage in ipairs(outages) do
      local ended = tonumber(string.match(outage, '%d+$'))
      if ended < time + offset - ARGV[8] or #outages - i + 2 > tonumber(ARGV[9]) then zset_remove(key, outage) end
    end
    zset_add(key, digits(touched_at + offset), digits(touched_at + offset) .. ' ' .. digits(time + offset))
  end
  reply = { 'confirmed', time, outage_ms }
end
return commit(reply)
