-- stats_counters: counters for the throughput model.
--
-- Each caller keeps the counters of the current 5 s beside the record of its last call, so counting costs no command per
-- queue. Counters of earlier 5 s go into a bucket that all callers share, by queue and, under the empty name, for the
-- shard. A bucket expires when no window reaches back to it. A reader adds both.
--
-- defines: counters_of
-- needs: prelude, clock, transaction, stats_format
-- registers: before_commit, which adds the call's counters to the caller's
-- keys: callers, stats:<bucket>
local BUCKET_TTL_MS = 920000
-- With more queues the caller's counters go into the bucket at once: reading them would cost each call more.
local MAX_PENDING_QUEUES = 16

-- Counters of this call: name -> queue -> counter.
local new_counters = {}

-- Returns the call's counters of this name, by queue, to be filled in.
local function counters_of(name)
  new_counters[name] = new_counters[name] or {}
  return new_counters[name]
end

-- Stages the addition of `pending` to its bucket.
local function flush_bucket(bucket, pending)
  local fields, additions = {}, {}
  for name, by_queue in pairs(pending) do
    local of_shard
    for queue, counter in pairs(by_queue) do
      fields[#fields + 1] = queue .. ':' .. name
      additions[#fields] = counter
      of_shard = add_counter(of_shard, counter)
    end
    fields[#fields + 1] = ':' .. name
    additions[#fields] = of_shard
  end
  local key, is_new = base .. 'stats:' .. digits(bucket), true
  local command = { 'HSET', key }
  touched[key] = true
  for i, packed in ipairs(call('HMGET', key, unpack(fields))) do
    if packed then is_new = false end
    command[2 * i + 1] = fields[i]
    command[2 * i + 2] = cmsgpack.pack(packed and add_counter(cmsgpack.unpack(packed), additions[i]) or additions[i])
  end
  writes[#writes + 1] = command
  if is_new then write('PEXPIRE', key, BUCKET_TTL_MS) end
end

before_commit[#before_commit + 1] = function()
  local is_counted = false
  for _, by_queue in pairs(new_counters) do is_counted = is_counted or next(by_queue) ~= nil end
  if not is_counted then return end
  local field = caller .. ':counters'
  local bucket, pending_bucket, pending = math.floor(now / BUCKET_MS), unpack_pending(call('HGET', callers, field))
  if pending_bucket ~= bucket then
    if pending_bucket and next(pending) and bucket - pending_bucket < BUCKET_TTL_MS / BUCKET_MS then
      flush_bucket(pending_bucket, pending)
    end
    pending = {}
  end
  local queues = 0
  for name, by_queue in pairs(new_counters) do
    local sums = pending[name] or {}
    pending[name] = sums
    for queue, counter in pairs(by_queue) do sums[queue] = add_counter(sums[queue], counter) end
    for _ in pairs(sums) do queues = queues + 1 end
  end
  if queues > MAX_PENDING_QUEUES then
    flush_bucket(bucket, pending)
    pending = {}
  end
  caller_field, caller_value = field, sequence .. ' ' .. now_digits .. ' ' .. cmsgpack.pack(pending)
end
