--[[ record_workers: records the workers that a server has seen, and drops those that no server has seen for long.

KEYS    workers, workers_seen
ARGV[5] retain_ms   how long a worker is kept after it was last seen
ARGV[6] max_workers kept; beyond that, those seen longest ago are dropped
ARGV[7] count       of workers; then for each: id, ms since it was seen, ms since it claimed ('': it has not), its description
RETURNS the number of workers recorded
MOVES   -
COST    O(n log workers)
]]
local answer = open_call()
if answer then return answer end

local workers, workers_seen = base .. 'workers', base .. 'workers_seen'
local count, ids, is_recorded, command = tonumber(ARGV[7]), {}, {}, { 'HSET', workers }
for i = 1, count do
  ids[i] = ARGV[4 + 4 * i]
  is_recorded[ids[i]] = true
end
local records = count > 0 and call('HMGET', workers, unpack(ids)) or {}
for i = 1, count do
  local seen_at, claimed_ago, description = now - ARGV[5 + 4 * i], ARGV[6 + 4 * i], ARGV[7 + 4 * i]
  local first_seen_at, claimed_at = seen_at, claimed_ago == '' and 0 or now - claimed_ago
  if records[i] then
    local known_first_seen_at, known_seen_at, known_claimed_at, known = string.match(records[i], '^(%d+) (%d+) (%d+) (.*)$')
    -- A record that cannot be read is replaced.
    first_seen_at = tonumber(known_first_seen_at) or seen_at
    seen_at = math.max(seen_at, tonumber(known_seen_at) or 0)
    -- The description of the last claim is kept, which may have been at another server.
    if (tonumber(known_claimed_at) or 0) > claimed_at then claimed_at, description = tonumber(known_claimed_at), known end
  end
  set_field(command, ids[i], string.format('%d %d %d ', first_seen_at, seen_at, claimed_at) .. description)
  zset_add(workers_seen, digits(seen_at), ids[i])
end
if count > 0 then writes[#writes + 1] = command end
local excess = call('ZCARD', workers_seen) + count - ARGV[6]
local outdated = excess > 0 and call('ZRANGE', workers_seen, 0, math.min(excess, 500) - 1)
  or call('ZRANGEBYSCORE', workers_seen, '-inf', digits(now - ARGV[5]), 'LIMIT', 0, 500)
local removal = { 'HDEL', workers }
for _, id in ipairs(outdated) do
  if not is_recorded[id] then
    zset_remove(workers_seen, id)
    removal[#removal + 1] = id
  end
end
if #removal > 2 then write_last(unpack(removal)) end
return commit(count)
