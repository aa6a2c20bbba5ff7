-- measure: what the throughput model is made of, summed up in buckets of 5 s of Redis' clock, for each queue and, under the
-- empty name, for the whole shard. A bucket is a hash, which goes by itself when nobody can ask for it any more. A script
-- has one field for each queue, because fields are what counting costs; they are packed:
--   submitted   how many
--   waited      `ms`: for how long all tasks handed out had been ready; class of these times: how many
--   ends        leases completed, failed, released, run out; how many ms all of them had lasted
local BUCKET_MS, KEEP_MS = 5000, 920000

-- Stages what was measured of each queue. `add` adds one sum to another, which it may change, and returns that; `all` is a
-- sum of nothing.
local function add_up(name, measured, all, add)
  local fields, sums = {}, {}
  for queue, sum in pairs(measured) do
    fields[#fields + 1] = queue .. ':' .. name
    sums[#fields] = sum
    all = add(all, sum)
  end
  if #fields == 0 then return end
  fields[#fields + 1] = ':' .. name
  sums[#fields] = all
  local key, is_new = base .. 'stats:' .. math.floor(now / BUCKET_MS), true
  local set = { 'HSET', key }
  touched[key] = true
  for i, had in ipairs(call('HMGET', key, unpack(fields))) do
    if had then is_new = false end
    set[2 * i + 1] = fields[i]
    set[2 * i + 2] = cmsgpack.pack(had and add(cmsgpack.unpack(had), sums[i]) or sums[i])
  end
  writes[#writes + 1] = set
  if is_new then write('PEXPIRE', key, KEEP_MS) end
end

