--[[ sight: note which workers a server has seen, and forget those that nobody has for long.

KEYS[1] calls       hash   last call of each pump; the declared key that carries the shard's tag
ARGV[1] base        derives base .. 'workers' (hash), base .. 'seen' (zset)
                                                                    same tag as KEYS[1]
ARGV[2] pump        who calls
ARGV[3] number      number of this call: repeated, it answers as before
ARGV[4] offset_ms   '' in production; tests move time with it
ARGV[5] forget_ms   how long is long
ARGV[6] most        so many are kept; beyond, no new ones are noted
ARGV[7] count       of workers; then for each: who (of which server), how long ago in ms, what is known of it
RETURNS how many were noted
MOVES   -
COST    O(n log workers)
]]
if last then return last end

local workers, seen = base .. 'workers', base .. 'seen'
local count, room = tonumber(ARGV[7]), tonumber(ARGV[6]) - call('ZCARD', seen)
local who, set, noted = {}, { 'HSET', workers }, 0
for i = 1, count do who[i] = ARGV[5 + 3 * i] end
local known = count > 0 and call('HMGET', workers, unpack(who)) or {}
touched[workers], touched[seen] = true, true
for i = 1, count do
  local at = digits(now - ARGV[6 + 3 * i])
  if known[i] or room > 0 then
    if not known[i] then room = room - 1 end
    local first = known[i] and string.match(known[i], '^%d+') or at
    set[#set + 1] = who[i]
    set[#set + 1] = first .. ' ' .. at .. ' ' .. ARGV[7 + 3 * i]
    add(seen, at, who[i])
    noted = noted + 1
  end
end
if noted > 0 then writes[#writes + 1] = set end
local gone = call('ZRANGEBYSCORE', seen, '-inf', digits(now - ARGV[5]), 'LIMIT', 0, 500)
for _, member in ipairs(gone) do remove(seen, member) end
if #gone > 0 then ending('HDEL', workers, unpack(gone)) end
return commit(cmsgpack.pack(noted))
