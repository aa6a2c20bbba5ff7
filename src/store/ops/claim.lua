--[[ claim: leases ready tasks to waiting requests, in the order of the requests.

KEYS    task:<id>, expirations
ARGV[5] max_bytes   of documents handed out; one task is always handed out
ARGV[6] queues      number; then their names
        tokens      number, which is the maximum of tasks; then the tokens
        waiters     number; then for each: max tasks, lease_ms, worker, digest of its claim id or '', number of queues, then
                    the index of each in the list of queues. The digest may have that of the queues behind it
RETURNS {more, expired, {waiter, token, id, lease_until, queue, field, …} for each task, {queue, front} for each queue read,
        {queue, id} for each task passed over because it is unreadable}
        more: 1 if a limit of the call ended it; expired: 1 if expired tasks were passed over; waiter, token, queue: indexes
        in the call's lists, from 1; front: priority of the next task; -1 if the wheel is empty or the queue is paused, so
        that the next task causes a wake-up; -2 if all tasks were passed over. A repeated call returns the same leases,
        without those that have ended.
MOVES   ready -> leased
COST    O(n log queue), and a page of the wheel for each queue
]]
local arg_at = 6
local function read_list()
  local from, to = arg_at + 1, arg_at + ARGV[arg_at]
  arg_at = to + 1
  return { unpack(ARGV, from, to) }
end
local queue_names, tokens = read_list(), read_list()
local answer = open_call(queue_names)
if answer and not last_reply then return answer end
max_tasks, bytes_left = #tokens, tonumber(ARGV[5])

-- The fields of a leased task that the caller needs and does not know.
local function handout(waiter, token, id, lease_until, queue, task)
  return { waiter, token, id, lease_until, queue, task[SLOT], task[PRIORITY], task[DOCUMENT], task[ATTEMPTS], task[MAX_ATTEMPTS],
    task[PROGRESS] or '', task[CREATED_AT], task[EXPIRES_AT] or '' }
end

if last_reply then
  local leased, handouts = cmsgpack.unpack(last_reply), {}
  for i = 1, #leased, 4 do
    local waiter, token, id, queue = unpack(leased, i, i + 3)
    local task = read_claimable(base .. 'task:' .. id)
    local lease_until = task and task[STATE] == 'leased' and task[LEASE] and live_until(task[LEASE], tokens[token])
    if lease_until then handouts[#handouts + 1] = handout(waiter, token, id, lease_until, queue, task) end
  end
  return cmsgpack.pack({ 1, 0, handouts, {}, {} })
end

-- Stages the lease of a task that was taken off the wheel. Returns its handout.
local function lease_to(waiter, queue, id, key, task)
  local acquired, _ = 0, nil
  if task[LEASE] then _, _, _, _, _, _, acquired = struct.unpack(L.lease.format, task[LEASE]) end
  local command = { 'HSET', key, F.state, 'leased' }
  local lease_until = begin_lease(command, waiter, tokens[taken], tonumber(task[MAX_RUN_MS]) or 0, acquired + 1, queue.name,
    queue.leased_key, id)
  writes[#writes + 1] = command
  if task[EXPIRES_AT] and task[EXPIRES_AT] ~= '' then zset_remove(base .. 'expirations', id) end
  local ready_at = task[READY_AT]
  queue.ready_times[ready_at] = (queue.ready_times[ready_at] or 0) + 1
  queue.leased = queue.leased + 1
  emit_event(id, queue.name, 'ready', 'leased')
  return handout(waiter.index, taken, id, lease_until, queue.index, task)
end

-- Queues that were read, by index; the handouts; and for a repetition of this call waiter, token, id, queue of each.
local opened, handouts, remembered = {}, {}, {}

local function serve(waiter, queue_indexes)
  for i = 1, #queue_indexes do
    local index = tonumber(queue_indexes[i])
    local queue = opened[index]
    if not queue then
      queue = open_queue(index, queue_names[index])
      opened[index] = queue
    end
    while waiter.max > 0 and not queue.is_empty and not is_full do
      if taken == max_tasks then is_full = true break end
      local id, key, task = next_task(queue)
      if not id then break end
      waiter.max = waiter.max - 1
      handouts[#handouts + 1] = lease_to(waiter, queue, id, key, task)
      local n = #remembered
      remembered[n + 1], remembered[n + 2], remembered[n + 3], remembered[n + 4] = waiter.index, taken, id, index
    end
  end
end

local waiters = tonumber(ARGV[arg_at])
arg_at = arg_at + 1
for index = 1, waiters do
  local max, lease_ms, worker, claim_digest = unpack(ARGV, arg_at, arg_at + 3)
  arg_at = arg_at + 4
  serve({ index = index, max = tonumber(max), lease_ms = tonumber(lease_ms), worker = worker, claim_digest = claim_digest }, read_list())
end

local fronts, is_front_wrong = {}, false
for index, queue in pairs(opened) do
  local front = close_queue(queue)
  fronts[#fronts + 1] = { index, queue.is_empty and front and -2 or front or -1 }
  -- The wheel of a paused queue was not read.
  if queue.wheel then
    is_front_wrong = is_front_wrong or front ~= front_of(record_of(queue.name))
    set_front(queue.name, front)
  end
  if queue.leased > 0 then
    for ready_at, number in pairs(queue.ready_times) do record_wait(queue.name, math.max(now - ready_at, 0), number) end
    count(queue.name, 'ready', -queue.leased)
    count(queue.name, 'leased', queue.leased)
  end
end
local reply = { is_full and 1 or 0, passed_expired, handouts, fronts, unreadable }
-- Nothing is written, not even the record of this call. A wrong front is corrected.
if taken == 0 and not has_set_back and not is_front_wrong then return cmsgpack.pack(reply) end
return commit(reply, remembered)
