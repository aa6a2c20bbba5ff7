--[[ sample_leases: note who holds how many leases now, once in 5 s.

KEYS[1] calls       hash   last call of each pump; the declared key that carries the shard's tag
ARGV[1] base        derives base .. 'due' (zset), base .. 'leased:' .. queue (zset), base .. 'task:' .. id (hash),
                    base .. 'holders' (hash)                        same tag as KEYS[1]
ARGV[2] pump        who calls
ARGV[3] number      number of this call: repeated, it answers as before
ARGV[4] offset_ms   '' in production; tests move time with it
ARGV[5] queues      looked into at most
ARGV[6] leases      looked at at most
ARGV[7] keep        samples that are kept
ARGV[8] at          what is counted has been held since then; '': since now
RETURNS since when what is counted in these 5 s has been held, whoever counted it
MOVES   -
COST    O(queues + leases)
]]
if last then return last end

local key, at = base .. 'holders', tonumber(ARGV[8]) or now
local bucket, old = math.floor(at / 5000), {}
for _, of in ipairs(call('HKEYS', key)) do
  if tonumber(of) == bucket then return cmsgpack.pack(cmsgpack.unpack(call('HGET', key, of))[1]) end
  if tonumber(of) <= bucket - ARGV[7] then old[#old + 1] = of end
end
touched[key] = true
local left, holders = tonumber(ARGV[6]), {}
for _, queue in ipairs(call('ZRANGE', base .. 'due', 0, ARGV[5] - 1)) do
  if left == 0 then break end
  for _, id in ipairs(call('ZRANGE', base .. 'leased:' .. queue, 0, left - 1)) do
    local task = call('HMGET', base .. 'task:' .. id, 'S', 'W', 'h')
    if task[1] == 'leased' and task[2] and tonumber(task[3]) <= at then holders[task[2]] = (holders[task[2]] or 0) + 1 end
    left = left - 1
  end
end
local list = { at }
for worker, held in pairs(holders) do
  list[#list + 1] = worker
  list[#list + 1] = held
end
if #list > 1 then write('HSET', key, bucket, cmsgpack.pack(list)) end
if #old > 0 then ending('HDEL', key, unpack(old)) end
local answer = cmsgpack.pack(at)
if #list == 1 and #old == 0 then return answer end
return commit(answer)
