--[[ sample_leases: counts the leases of each worker, once in 5 s for all servers.

KEYS    due, leased:<queue>, lease_samples
ARGV[5] max_queues  read
ARGV[6] max_leases  read
ARGV[7] samples     kept
ARGV[8] held_since  counts leases held since then, in ms; '': since now
RETURNS the `held_since` of the sample of these 5 s, whichever server took it
MOVES   -
COST    O(queues + leases)
]]
local answer = open_call()
if answer then return answer end

local SAMPLE_INTERVAL_MS = 5000
local key, held_since = base .. 'lease_samples', tonumber(ARGV[8]) or now
local bucket, outdated = math.floor(held_since / SAMPLE_INTERVAL_MS), {}
for _, taken in ipairs(call('HKEYS', key)) do
  if tonumber(taken) == bucket then return cmsgpack.pack(cmsgpack.unpack(call('HGET', key, taken))[1]) end
  if tonumber(taken) <= bucket - ARGV[7] then outdated[#outdated + 1] = taken end
end
local leases_left, leases_of = tonumber(ARGV[6]), {}
for _, queue in ipairs(call('ZRANGE', base .. 'due', 0, ARGV[5] - 1)) do
  if leases_left == 0 then break end
  -- Leases that cannot be read count as none.
  for _, id in ipairs(redis.pcall('ZRANGE', base .. 'leased:' .. queue, 0, leases_left - 1)) do
    local task = try_task(id, {})
    if task and task[F.state] == 'leased' and task[F.leased_at] <= held_since and task[F.lease_until] > held_since then
      leases_of[task[F.worker]] = (leases_of[task[F.worker]] or 0) + 1
    end
    leases_left = leases_left - 1
  end
end
local sample = { held_since }
for worker, leases in pairs(leases_of) do
  sample[#sample + 1] = worker
  sample[#sample + 1] = leases
end
if #sample > 1 then write('HSET', key, bucket, cmsgpack.pack(sample)) end
if #outdated > 0 then write_last('HDEL', key, unpack(outdated)) end
if #sample == 1 and #outdated == 0 then return cmsgpack.pack(held_since) end
return commit(held_since)
