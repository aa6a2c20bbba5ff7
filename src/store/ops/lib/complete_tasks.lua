-- complete_tasks: completes leased tasks, if their tokens hold the leases. It is a part of the body of its scripts: it opens the
-- call, and returns the reply to a repeated one.
--
-- Reads ARGV[5], retain_ms: how long a completed task without its own retention is kept; ARGV[6], count of tasks; then for
-- each: id, token, result.
--
-- defines: keys (of the tasks), replies: {'completed'} | {'repeated', state, run_at | '', 1 if the result was dropped} |
--   {'lease_lost', state} | {'unknown'} for each task
-- needs: clock, transaction, records, open_call, events, index_end, lease_ends; define_complete, see complete_any
-- keys: task:<id>, leased:<queue>
local number, keys, leases, queues = tonumber(ARGV[6]), {}, {}, {}
local is_named, queues_of, counts = number > 1 and {}, {}, {}
for i = 1, number do
  local key, queue = base .. 'task:' .. ARGV[4 + 3 * i], nil
  if is_named then
    if is_named[key] then error('TWICE one task in a call') end
    is_named[key] = true
  end
  local state, placement, lease = unpack(redis.pcall('HMGET', key, F.state, F.placement, F.lease))
  -- The name of the queue is behind the digest of the key, if the task has one.
  local name_at = placement and L.placement.bytes + ((string.byte(placement, L.placement.byte_options) or 0) % 8 < 4 and 9 or 1)
  if placement and #placement >= name_at then
    queue = string.sub(placement, name_at)
    if raw_records[queue] == nil then raw_records[queue], queues[#queues + 1] = false, queue end
  end
  -- Most tasks have no fields that their end reads, and leases have no claim id.
  local is_plain = queue and state == 'leased' and lease and #lease >= L.lease.bytes
    and string.byte(placement) == L.placement.version and string.byte(placement, L.placement.byte_options) % 4 < 2
    and string.byte(lease) == L.lease.version and string.byte(lease, L.lease.byte_has_claim) == 0
  keys[i], queues_of[i], leases[i] = key, queue, is_plain and lease
end
local answer = open_call(queues)
if answer then return answer end

local replies, completed, complete = {}, { 'completed' }, nil
for i = 1, number do
  local id, token, result = unpack(ARGV, 4 + 3 * i, 6 + 3 * i)
  local held_by, lease_until, leased_at, _
  if leases[i] then _, held_by, lease_until, leased_at = struct.unpack(L.lease.before_lease_set_at, leases[i]) end
  if held_by == token and lease_until > now then
    local queue = queues_of[i]
    local end_seq, ended_at = next_end(queue, 'completed', L.queue.completed)
    local command = { 'HSET', keys[i], F.state, 'completed', F.ending, struct.pack(L.ending.format, L.ending.version,
      L.ending.ended_by.complete, L.ending.ended_state.completed, 0, ended_at, end_seq), nil, nil }
    if result ~= '' then set_field(command, F.result, result) end
    writes[#writes + 1] = command
    zset_remove(base .. 'leased:' .. queue, id)
    index_end(id, queue, 'completed', end_seq, ended_at, nil, ARGV[5])
    count_lease_end(queue, 1, now - leased_at, false)
    counts[queue] = (counts[queue] or 0) + 1
    emit_event(id, queue, 'leased', 'completed')
    replies[i] = completed
  else
    complete = complete or define_complete()
    replies[i] = complete(id, token, result)
  end
end
for queue, n in pairs(counts) do
  count(queue, L.queue.leased, -n)
  count(queue, L.queue.completed, n)
end
