-- hand_off: leases new tasks to waiting requests that their submit offers, instead of putting them into slot queues.
--
-- A queue hands over only if its wheel is empty, no other task of it moves in this call, and it is not paused. So no task is
-- overtaken, and the wheel changes no turn. The tasks of the highest priority go first, in the order of the call. The
-- requests take in their order, each from the first of its queues that has one left, up to its maximum.
--
-- Reads from ARGV[at], the end of ARGV if the call offers no requests: number of tokens, which is the maximum of tasks; the
-- tokens; number of requests; then for each: max tasks, lease_ms, worker, digest of its claim id or '', number of queues, their names.
--
-- defines: the end of define_hand_off(at), which returns three functions: defer, hand_over, repeat_hand_offs
-- needs: prelude, clock, transaction, records, events, wheel, wait_times, begin_lease, repeated_lease
-- keys: task:<id>, leased:<queue>
local tokens, offers, tasks_of, handed = {}, {}, {}, {}

local function read_list()
  local from, to = at + 1, at + ARGV[at]
  at = to + 1
  return { unpack(ARGV, from, to) }
end

local function by_priority(one, other)
  if one.priority ~= other.priority then return one.priority > other.priority end
  return one.index < other.index
end

local function lease_to(offer, index, queue, new)
  local task, command = new.task, new.command
  local max_run_ms, token = 0, tokens[#handed + 1]
  for i = task.fields_from, task.fields_to, 2 do
    if ARGV[i] == F.max_run_ms then max_run_ms = tonumber(ARGV[i + 1]) or 0 end
  end
  -- The state is the first field.
  command[4] = 'leased'
  local lease_until = begin_lease(command, offer, token, max_run_ms, 1, queue, base .. 'leased:' .. queue, task.id)
  if task.options and task.options.expires_at then zset_remove(base .. 'expirations', task.id) end
  count(queue, L.queue.ready, -1)
  count(queue, L.queue.leased, 1)
  emit_event(task.id, queue, 'ready', 'leased')
  record_wait(queue, 0, 1)
  handed[#handed + 1] = { index, task.index, lease_until, task.id, token }
end

-- Leaves a ready task, whose HSET is `command`, to the end of the call. Returns false if no offer is for its queue.
local function defer(task, command)
  local list = tasks_of[task[F.queue]]
  if list then list[#list + 1] = { task = task, command = command, priority = task[F.priority], index = task.index } end
  return list ~= nil
end

-- Hands over or enqueues each task that was left. Returns {request, task, lease_until, id, token} of each handed over;
-- request and task: indexes in the call's lists, from 1.
local function hand_over()
  for queue, list in pairs(tasks_of) do
    table.sort(list, by_priority)
    local record = #list > 0 and record_of(queue)
    list.is_closed = record and (front_of(record) or is_paused(record))
    for _, entry in ipairs(changed_slots[queue] or {}) do
      list.is_closed = list.is_closed or entry.added ~= 0 or entry.has_removals
    end
  end
  for index, offer in ipairs(offers) do
    for _, queue in ipairs(offer.queues) do
      local list = tasks_of[queue]
      while not list.is_closed and offer.max > 0 and list[list.first] and #handed < #tokens do
        lease_to(offer, index, queue, list[list.first])
        offer.max, list.first = offer.max - 1, list.first + 1
      end
    end
  end
  for queue, list in pairs(tasks_of) do
    for i = list.first, #list do
      local task = list[i].task
      enqueue(task, task[F.seq])
    end
  end
  return handed
end

-- Returns the packed reply to a repeated call: without the hand-offs whose leases have ended.
local function repeat_hand_offs(packed)
  local reply = cmsgpack.unpack(packed)
  local live = {}
  for _, entry in ipairs(reply[2]) do
    local state, lease = unpack(call('HMGET', base .. 'task:' .. entry[4], F.state, F.lease))
    if state == 'leased' and lease and live_until(lease, entry[5]) then live[#live + 1] = entry end
  end
  reply[2] = live
  return cmsgpack.pack(reply)
end

if ARGV[at] then
  tokens = read_list()
  at = at + 1
  for i = 1, tonumber(ARGV[at - 1]) do
    local max, lease_ms, worker, claim_digest = unpack(ARGV, at, at + 3)
    at = at + 4
    offers[i] = { max = tonumber(max), lease_ms = tonumber(lease_ms), worker = worker, claim_digest = claim_digest,
      queues = read_list() }
    for _, queue in ipairs(offers[i].queues) do tasks_of[queue] = tasks_of[queue] or { first = 1 } end
  end
end
return defer, hand_over, repeat_hand_offs
