-- measure: counts for the throughput model. Each pump has the sums of the last 5 s at hand, beside the record of its last
-- call, so that counting takes no command for each queue: commands are what it would cost. What is over goes into a
-- bucket of all pumps, by queue and, under the empty name, for the whole shard: a hash, which goes by itself when nobody
-- can ask for it any more. Whoever reads looks at both.
local KEEP_MS = 920000
-- Of more queues a pump has nothing at hand: to go through them would cost each call more than it saves.
local QUEUES = 16

-- Stages that sums go into their bucket.
local function put_away(bucket, sums)
  local fields, more = {}, {}
  for name, by_queue in pairs(sums) do
    local all
    for queue, sum in pairs(by_queue) do
      fields[#fields + 1] = queue .. ':' .. name
      more[#fields] = sum
      all = add_to(all, sum)
    end
    fields[#fields + 1] = ':' .. name
    more[#fields] = all
  end
  local key, is_new = base .. 'stats:' .. digits(bucket), true
  local set = { 'HSET', key }
  touched[key] = true
  for i, had in ipairs(call('HMGET', key, unpack(fields))) do
    if had then is_new = false end
    set[2 * i + 1] = fields[i]
    set[2 * i + 2] = cmsgpack.pack(had and add_to(cmsgpack.unpack(had), more[i]) or more[i])
  end
  writes[#writes + 1] = set
  if is_new then write('PEXPIRE', key, KEEP_MS) end
end

-- Stages what this call has measured of each queue.
local function measured(name, by_queue)
  if not next(by_queue) then return end
  local bucket, of, sums = math.floor(now / BUCKET_MS), at_hand_of(call('HGET', calls, pump .. ':sums'))
  if of ~= bucket then
    if of and next(sums) and bucket - of < KEEP_MS / BUCKET_MS then put_away(of, sums) end
    sums = {}
  end
  local own, queues = sums[name] or {}, 0
  sums[name] = own
  for queue, sum in pairs(by_queue) do own[queue] = add_to(own[queue], sum) end
  for _ in pairs(own) do queues = queues + 1 end
  if queues > QUEUES then
    put_away(bucket, sums)
    sums = {}
  end
  at_hand = number .. ' ' .. now_digits .. ' ' .. cmsgpack.pack(sums)
end
