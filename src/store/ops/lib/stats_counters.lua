-- stats_counters: counters for the throughput model.
--
-- Each caller keeps the counters of the current 5 s beside the record of its last call, so counting costs no command per
-- queue. Counters of earlier 5 s go into a bucket that all callers share, by queue and, under the empty name, for the
-- shard. A bucket expires when no window reaches back to it. A reader adds both.
--
-- defines: new_counters
-- needs: prelude, clock, transaction, stats_format
-- registers: before_commit, which adds the call's counters to the caller's; a field that open_call reads
-- keys: callers, stats:<bucket>
local BUCKET_TTL_MS = 920000
-- With more queues the caller's counters go into the bucket at once: reading them would cost each call more.
local MAX_PENDING_QUEUES = 16

local counters_field, counters_place = caller .. ':counters', #call_fields + 1
call_fields[counters_place] = counters_field

-- Counters of this call: name -> queue -> counter; scripts and fragments enter their names.
local new_counters = {}

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
  local bucket, pending, queues = math.floor(now / BUCKET_MS), nil, 0
  for name, by_queue in pairs(new_counters) do
    if next(by_queue) then
      if not pending then
        local pending_bucket
        pending_bucket, pending = unpack_pending(call_values[counters_place])
        if pending_bucket ~= bucket then
          if pending_bucket and next(pending) and bucket - pending_bucket < BUCKET_TTL_MS / BUCKET_MS then
            flush_bucket(pending_bucket, pending)
          end
          pending = {}
        end
      end
      local sums = pending[name] or {}
      pending[name] = sums
      for queue, counter in pairs(by_queue) do sums[queue] = add_counter(sums[queue], counter) end
      for _ in pairs(sums) do queues = queues + 1 end
    end
  end
  if not pending then return end
  if queues > MAX_PENDING_QUEUES then
    flush_bucket(bucket, pending)
    pending = {}
  end
  set_field(callers_command, counters_field,
    struct.pack(L.call.format, L.call.version, sequence, now) .. cmsgpack.pack(pending))
end
