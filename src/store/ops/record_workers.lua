--[[ record_workers: note which workers a server has seen, and forget those that nobody has for long.

KEYS[1] calls       hash   last call of each pump; the declared key that carries the shard's tag
ARGV[1] base        derives base .. 'workers' (hash), base .. 'seen' (zset)
                                                                    same tag as KEYS[1]
ARGV[2] pump        who calls
ARGV[3] number      number of this call: repeated, it answers as before
ARGV[4] offset_ms   '' in production; tests move time with it
ARGV[5] forget_ms   how long is long
ARGV[6] most        so many are kept; beyond, those go that were seen least recently
ARGV[7] count       of workers; then for each: who, how many ms ago it was seen, how many ms ago it claimed ('': it has not), what
                    is known of it
RETURNS how many were noted
MOVES   -
COST    O(n log workers)
]]
if last then return last end

local workers, seen = base .. 'workers', base .. 'seen'
local count, who, here, set = tonumber(ARGV[7]), {}, {}, { 'HSET', workers }
for i = 1, count do
  who[i] = ARGV[4 + 4 * i]
  here[who[i]] = true
end
local known = count > 0 and call('HMGET', workers, unpack(who)) or {}
touched[workers], touched[seen] = true, true
for i = 1, count do
  local at, claimed_ago, what = now - ARGV[5 + 4 * i], ARGV[6 + 4 * i], ARGV[7 + 4 * i]
  local first, claimed = at, claimed_ago == '' and 0 or now - claimed_ago
  if known[i] then
    local known_first, known_at, known_claimed, known_what = string.match(known[i], '^(%d+) (%d+) (%d+) (.*)$')
    first, at = tonumber(known_first), math.max(at, tonumber(known_at))
    -- It may have claimed at another server since: its last claim says what it works at.
    if tonumber(known_claimed) > claimed then claimed, what = tonumber(known_claimed), known_what end
  end
  set[#set + 1] = who[i]
  set[#set + 1] = string.format('%d %d %d ', first, at, claimed) .. what
  add(seen, digits(at), who[i])
end
if count > 0 then writes[#writes + 1] = set end
local excess = call('ZCARD', seen) + count - ARGV[6]
local gone = excess > 0 and call('ZRANGE', seen, 0, math.min(excess, 500) - 1)
  or call('ZRANGEBYSCORE', seen, '-inf', digits(now - ARGV[5]), 'LIMIT', 0, 500)
local forgotten = { 'HDEL', workers }
for _, member in ipairs(gone) do
  if not here[member] then
    remove(seen, member)
    forgotten[#forgotten + 1] = member
  end
end
if #forgotten > 2 then ending(unpack(forgotten)) end
return commit(cmsgpack.pack(count))
