--[[ confirm_clock: confirms the shard's clock with a shift, and records the outage since its last touch. It changes nothing if
another server was faster.

KEYS    callers, outages
ARGV[5] record      of the clock, which the server has judged
ARGV[6] shift_ms    between Redis' clock and the shard's from now on
ARGV[7] keep_ms     how long an outage is kept
ARGV[8] max         number of outages kept
RETURNS {'confirmed', time by the shard's clock in ms, length of the outage in ms or 0} | {'changed'}
MOVES   -
COST    O(max)
]]
if last_reply then return last_reply end

local old_shift, shift = tonumber(shift_ms) or 0, tonumber(ARGV[6])
local key, reply = base .. 'outages', { 'changed' }
if touched_at and clock_record == ARGV[5] then
  local last_touch, offset, time = tonumber(touched_at), now - shard_ms, shard_ms - old_shift + shift
  caller_field = 'clock'
  caller_value = digits(time) .. ' ' .. digits(shift) .. ' ' .. (shift == old_shift and string.match(clock_record, '%d+$') or digits(time))
  local outage_ms = time - last_touch
  if outage_ms <= MAX_GAP_MS then outage_ms = 0 end
  if outage_ms > 0 then
    local outages = call('ZRANGE', key, 0, -1)
    touched[key] = true
    for i, outage in ipairs(outages) do
      local ended = tonumber(string.match(outage, '%d+$'))
      if ended < time + offset - ARGV[7] or #outages - i + 2 > tonumber(ARGV[8]) then zset_remove(key, outage) end
    end
    zset_add(key, digits(last_touch + offset), digits(last_touch + offset) .. ' ' .. digits(time + offset))
  end
  reply = { 'confirmed', time, outage_ms }
end
return commit(reply)
