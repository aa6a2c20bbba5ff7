-- wheel_reader: takes ready tasks off the wheels of queues, strictly by priority and within a priority slot by slot.
--
--   wheel:q (zset; score (9 - priority) * TURNS + turn)      slot:q:9:17 (zset; score seq)
--
--    priority 9      | priority 4                     .--> id, id, id, ...
--   [9:17] [9:803]   | [4:812] [4:7] [4:11]           |
--     |  front                            rear        slot queue: tasks of one slot and priority, oldest first
--     '------------------------------------------------'
--   A turn takes one task of the slot at the front. A slot with more tasks goes to the rear of its priority, an empty
--   slot leaves the wheel. A call turns a copy: it reads the wheel in pages, keeps the slots that have had a turn in
--   `rear`, and stages the new scores in `close_queue`.
--
-- An entry that cannot be handed out stays in its slot queue, behind all others: it moves there when a call passes it over,
-- and a call that meets one there goes on with the next slot.
--
-- The script sets the limits `max_tasks` and `bytes_left` first.
--
-- defines: the index of each field, open_queue, next_task, close_queue; taken, is_full, passed_expired, unreadable,
--   has_set_back
-- needs: prelude, clock, transaction, records
-- keys: task:<id>, slot:<queue>:<priority>:<slot>, wheel:<queue>, leased:<queue>
local TURNS, FIRST_PAGE, NEXT_PAGES, MAX_EXAMINED = 2 ^ 49, 16, 64, 500
-- A task is an array here: with a hundred tasks a call, tables by name are a tenth of the cost.
local STATE, DOCUMENT, SLOT, PRIORITY, ATTEMPTS, MAX_ATTEMPTS, CREATED_AT, READY_AT, LEASE, EXPIRES_AT, PROGRESS, MAX_RUN_MS =
  1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12
local max_tasks, bytes_left
-- Tasks taken; tasks examined; 1 if an expired task was passed over; whether a limit of the call is reached.
local taken, examined, passed_expired, is_full = 0, 0, 0, false
-- Tasks that cannot be read: {index of the queue, id}; whether entries move behind all others.
local unreadable, has_set_back = {}, false
-- Added to the scores of entries that cannot be handed out: more than any seq.
local SET_BACK = 2 ^ 52

-- A priority is one digit.
local function priority_of(member)
  return tonumber(string.sub(member, 1, 1))
end

-- Returns the queue with the first page of its wheel. `index` is its position in the call's list of queues.
local function open_queue(index, name)
  local queue = { index = index, name = name, page = {}, page_at = 1, read = 0, size = 0, rear = {}, rear_at = 1, visited = {},
    turns = 0, leased = 0, ready_times = {}, slots = base .. 'slot:' .. name .. ':', leased_key = base .. 'leased:' .. name }
  if is_paused(record_of(name)) then
    queue.is_empty = true
    return queue
  end
  queue.wheel = base .. 'wheel:' .. name
  queue.page = call('ZRANGE', queue.wheel, 0, FIRST_PAGE - 1)
  touched[queue.wheel] = true
  queue.read, queue.front = #queue.page, queue.page[1]
  queue.size = queue.read < FIRST_PAGE and queue.read or call('ZCARD', queue.wheel)
  -- Ids are read ahead for each slot: the call's share of it if all slots have as many, and one to see whether more follow.
  queue.read_ahead = math.ceil((max_tasks - taken) / math.max(1, queue.size)) + 1
  queue.read_ahead_last = digits(queue.read_ahead - 1)
  return queue
end

-- Returns the next member of the wheel that has had no turn yet.
local function next_unvisited(queue)
  if queue.page_at > #queue.page and queue.read < queue.size then
    queue.page, queue.page_at = call('ZRANGE', queue.wheel, queue.read, queue.read + NEXT_PAGES - 1), 1
    queue.read = queue.read + #queue.page
    if #queue.page == 0 then queue.size = queue.read end
  end
  return queue.page[queue.page_at]
end

-- Returns the entry whose turn it is, nil if there is none; and whether it comes from `rear`. Within a priority, entries
-- without a turn come first.
local function current_entry(queue)
  local member, rear = next_unvisited(queue), queue.rear[queue.rear_at]
  local priority = member and priority_of(member)
  if rear and (not member or priority < rear.priority) then return rear, true end
  if not member then return nil end
  if not queue.current or queue.current.member ~= member then
    queue.current = { member = member, priority = priority, key = queue.slots .. member, ids = {},
      id_at = 1, read = 0, taken = { 'ZREM', queue.slots .. member }, is_drained = false, has_skipped = false, is_served = false, turn = false, is_gone = false }
  end
  return queue.current, false
end

-- Returns the next id of an entry.
local function peek(queue, entry)
  if entry.id_at > #entry.ids and not entry.is_drained then
    local from, to = '0', queue.read_ahead_last
    if entry.read > 0 then from, to = entry.read, entry.read + queue.read_ahead - 1 end
    entry.ids = call('ZRANGE', entry.key, from, to)
    touched[entry.key] = true
    entry.id_at, entry.read = 1, entry.read + #entry.ids
    entry.is_drained = #entry.ids < queue.read_ahead
  end
  return entry.ids[entry.id_at]
end

-- Ends the turn of `entry`.
local function advance(queue, entry, is_from_rear)
  if is_from_rear then queue.rear_at = queue.rear_at + 1 else queue.page_at = queue.page_at + 1 end
  local has_more = peek(queue, entry)
  if entry.is_served then
    queue.turns = queue.turns + 1
    entry.turn = queue.turns
    if has_more then queue.rear[#queue.rear + 1] = entry end
  end
  entry.is_gone = not has_more and not entry.has_skipped
  entry.is_served = false
  queue.visited[entry.member] = entry
end

-- Returns the fields of a task, with the time since which it is ready as a number; nil if there is no such task, or if it
-- cannot be handed out; then also whether it is unreadable. It must not block the tasks behind it.
local function read_claimable(key)
  if touched[key] then error('TWICE one task in a call') end
  touched[key] = true
  local state, document, placement, lease = unpack(redis.pcall('HMGET', key, F.state, F.document, F.placement, F.lease))
  if not state then return nil, state == nil end
  if not document or not placement or #placement <= L.placement.bytes or string.byte(placement) ~= L.placement.version
    or (lease and (#lease < L.lease.bytes or string.byte(lease) ~= L.lease.version)) then
    return nil, state == 'ready'
  end
  local _, priority, slot, max_attempts, attempts, options, created_at, ready_at = struct.unpack(L.placement.format, placement)
  local task = { state, document, slot, priority, attempts, max_attempts, created_at, ready_at, lease, false, false, false }
  if lease or options % 2 == 1 then
    task[EXPIRES_AT], task[PROGRESS], task[MAX_RUN_MS] = unpack(call('HMGET', key, F.expires_at, F.progress, F.max_run_ms))
  end
  return task
end

-- Takes the next task off the queue's wheel: returns its id, key and fields; nil if the queue is empty or a limit
-- of the call is reached.
local function next_task(queue)
  while not is_full do
    local entry, is_from_rear = current_entry(queue)
    if not entry then
      queue.is_empty = true
      return nil
    end
    local id = peek(queue, entry)
    if not id then
      advance(queue, entry, is_from_rear)
    else
      local key = base .. 'task:' .. id
      local task, is_unreadable = read_claimable(key)
      examined = examined + 1
      local has_expired = task and (tonumber(task[EXPIRES_AT]) or now + 1) <= now
      if not task or task[STATE] ~= 'ready' or has_expired then
        if has_expired then passed_expired = 1 end
        if is_unreadable then unreadable[#unreadable + 1] = { queue.index, id } end
        entry.id_at, entry.has_skipped = entry.id_at + 1, true
        local score = not has_expired and tonumber(call('ZSCORE', entry.key, id))
        if score and score < SET_BACK then
          zset_add(entry.key, digits(score + SET_BACK), id)
          has_set_back = true
        elseif score then
          -- It and all behind it were set back by an earlier call.
          entry.id_at, entry.is_drained = #entry.ids + 1, true
        end
        is_full = examined >= MAX_EXAMINED
      else
        local bytes = #task[DOCUMENT] + #(task[PROGRESS] or '')
        if taken > 0 and bytes > bytes_left then
          is_full = true
        else
          bytes_left, taken = bytes_left - bytes, taken + 1
          entry.id_at, entry.is_served = entry.id_at + 1, true
          entry.taken[#entry.taken + 1] = id
          advance(queue, entry, is_from_rear)
          return id, key, task
        end
      end
    end
  end
end

local function by_turn(one, other)
  return one.turn < other.turn
end

-- Stages the wheel as it is after this call. Returns the priority at its front, nil if it is empty.
local function close_queue(queue)
  local front, rotated, slots_of_priority, emptied = nil, {}, {}, {}
  local function keep(priority)
    slots_of_priority[priority] = (slots_of_priority[priority] or 0) + 1
    if not front or priority > front then front = priority end
  end
  for member, entry in pairs(queue.visited) do
    if entry.is_gone then
      zset_remove(queue.wheel, member)
      emptied[#emptied + 1] = entry.key
    else
      keep(entry.priority)
      if entry.turn then rotated[#rotated + 1] = entry end
      if #entry.taken > 2 then removals[entry.key] = entry.taken end
    end
  end
  local member = next_unvisited(queue)
  if member then keep(priority_of(member)) end
  table.sort(rotated, by_turn)
  for _, entry in ipairs(rotated) do
    -- A slot that is alone in its priority is at its rear already.
    if slots_of_priority[entry.priority] > 1 then
      zset_add(queue.wheel, digits((9 - entry.priority) * TURNS + next_counter('turn')), entry.member)
    end
  end
  if #emptied > 0 then write_last('DEL', unpack(emptied)) end
  return front
end
