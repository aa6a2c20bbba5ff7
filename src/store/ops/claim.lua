--[[ claim: leases ready tasks to waiting requests, in the order of the requests.

KEYS    expirations
ARGV[5] max_bytes   of documents handed out; one task is always handed out
ARGV[6] queues      number; then their names
        tokens      number, which is the maximum of tasks; then the tokens
        waiters     number; then for each: max tasks, lease_ms, worker, digest of its claim id or '', number of queues, then
                    the index of each in the list of queues. The digest may have that of the queues behind it
RETURNS {more, expired, {waiter, token, id, lease_until, queue, placement, document, progress, expires_at} for each task,
        {queue, front} for each queue read, {queue, id} for each task passed over because it is unreadable}
        more: 1 if a limit of the call ended it; expired: 1 if expired tasks were passed over; waiter, token, queue: indexes
        in the call's lists, from 1; front: priority of the next task; -1 if the wheel is empty or the queue is paused, so
        that the next task causes a wake-up; -2 if all tasks were passed over. A repeated call returns the same leases,
        without those that have ended.
MOVES   ready -> leased
COST    O(n log queue), and a page of the wheel for each queue
]]
local queue_names, at = { unpack(ARGV, 7, 6 + ARGV[6]) }, 7 + ARGV[6]
local answer = open_call(queue_names)
if answer and not last_reply then return answer end

max_tasks, bytes_left = tonumber(ARGV[at]), tonumber(ARGV[5])
local tokens_at = at
at = at + max_tasks + 1
if last_reply then
  local repeat_claim = define_repetition()
  return repeat_claim(tokens_at)
end

-- The handouts; for a repetition of this call waiter, token, queue, id of each; the queues that were read, by index.
local handouts, remembered, opened = {}, {}, {}

-- Leases the next task of the queue to the waiter. Returns false if there is none, or a limit of the call is reached.
local function lease_next(waiter, queue)
  if taken == max_tasks then is_full = true end
  local id, key, document, placement, lease, expires_at, progress, max_run_ms = next_task(queue)
  if not id then return false end
  local acquired, name, index, _ = 0, queue.name, queue.index, nil
  if lease then _, _, _, _, _, _, acquired = struct.unpack(L.lease.format, lease) end
  local command = { 'HSET', key, F.state, 'leased', nil, nil }
  local lease_until = begin_lease(command, waiter, ARGV[tokens_at + taken], tonumber(max_run_ms) or 0, acquired + 1, name,
    queue.leased_key, id)
  writes[#writes + 1] = command
  if expires_at and expires_at ~= '' then zset_remove(base .. 'expirations', id) end
  local ready_at = struct.unpack(L.placement.from_ready_at, placement, L.placement.byte_ready_at)
  record_wait(name, now > ready_at and now - ready_at or 0, 1)
  queue.leased = queue.leased + 1
  emit_event(id, name, 'ready', 'leased')
  handouts[taken] = { waiter.index, taken, id, lease_until, index, placement, document, progress or '', expires_at or '' }
  remembered[taken] = struct.pack('>I2I2I2', waiter.index, taken, index) .. id
  return true
end

for index = 1, tonumber(ARGV[at]) do
  local max, lease_ms, worker, claim_digest, queues = unpack(ARGV, at + 1, at + 5)
  local waiter = { index = index, lease_ms = tonumber(lease_ms), worker = worker, claim_digest = claim_digest }
  local room = tonumber(max)
  at = at + 5
  for i = at + 1, at + queues do
    local queue_index = tonumber(ARGV[i])
    local queue = opened[queue_index]
    if not queue then
      queue = open_queue(queue_index, queue_names[queue_index])
      opened[queue_index] = queue
    end
    while room > 0 and not queue.is_empty and not is_full and lease_next(waiter, queue) do room = room - 1 end
  end
  at = at + queues
end

local fronts, is_front_wrong = {}, false
for index, queue in pairs(opened) do
  local front, name, leased = nil, queue.name, queue.leased
  -- The wheel of a paused queue was not read.
  if queue.wheel then
    front = close_queue(queue)
    is_front_wrong = is_front_wrong or front ~= front_of(record_of(name))
    set_front(name, front)
  end
  fronts[#fronts + 1] = { index, queue.is_empty and front and -2 or front or -1 }
  if leased > 0 then
    count(name, L.queue.ready, -leased)
    count(name, L.queue.leased, leased)
  end
end
local reply = { is_full and 1 or 0, passed_expired, handouts, fronts, unreadable }
-- Nothing is written, not even the record of this call. A wrong front is corrected.
if taken == 0 and not has_set_back and not is_front_wrong then return cmsgpack.pack(reply) end
return commit(reply, table.concat(remembered))
