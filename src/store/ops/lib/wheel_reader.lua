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
--   `rear`; `close_queue` stages the new scores.
--
-- An entry that cannot be handed out stays in its slot queue, behind all others: it moves there when a call passes it over,
-- and a call that meets one there goes on with the next slot.
--
-- The script sets the limits `max_tasks` and `bytes_left` first.
--
-- defines: open_queue, next_unvisited, next_task; max_tasks, bytes_left, taken, is_full, passed_expired, unreadable, has_set_back
-- needs: prelude, clock, transaction, records, pieces, claimable
-- keys: task:<id>, slot:<queue>:<priority>:<slot>, slot:<queue>:<priority>:<slot>:<piece>, wheel:<queue>, leased:<queue>
local max_tasks, bytes_left
-- Tasks taken; tasks examined; 1 if an expired task was passed over; whether a limit of the call is reached.
local taken, examined, passed_expired, is_full = 0, 0, 0, false
-- Tasks that cannot be read: {index of the queue, id}; whether entries move behind all others.
local unreadable, has_set_back = {}, false

-- Returns the queue with the first page of its wheel, whose number of members is `size`. `index` is its position in the call's
-- list of queues.
local function open_queue(index, name)
  local record = record_of(name)
  if is_paused(record) then return { index = index, name = name, is_empty = true, leased = 0 } end
  local wheel = base .. 'wheel:' .. name
  local page = call('ZRANGE', wheel, '0', '15')
  local size = #page < 16 and #page or call('ZCARD', wheel)
  -- Ids are read ahead for each slot: the call's share of it if all slots have as many, and one to see whether more follow.
  local read_ahead = math.ceil((max_tasks - taken) / math.max(1, size)) + 1
  return { index = index, name = name, record = record, wheel = wheel, page = page, page_at = 1, read = #page, size = size, rear = nil, rear_at = 1,
    visited = {}, turns = 0, leased = 0, slots = base .. 'slot:' .. name .. ':', leased_key = base .. 'leased:' .. name,
    read_ahead = read_ahead, current = nil, is_empty = false }
end

-- Returns the next member of the wheel that has had no turn yet.
local function next_unvisited(queue)
  if queue.page_at > #queue.page and queue.read < queue.size then
    queue.page, queue.page_at = call('ZRANGE', queue.wheel, queue.read, queue.read + 63), 1
    queue.read = queue.read + #queue.page
    if #queue.page == 0 then queue.size = queue.read end
  end
  return queue.page[queue.page_at]
end

-- Returns the next id of an entry.
local function peek(queue, entry)
  local ids = entry.ids
  if not ids or entry.id_at > #ids and not entry.is_drained then
    local read, read_ahead = entry.read, queue.read_ahead
    ids = call('ZRANGE', entry.key, read == 0 and '0' or read, read + read_ahead - 1)
    entry.ids, entry.id_at, entry.read, entry.is_drained = ids, 1, read + #ids, #ids < read_ahead
  end
  local record = queue.record
  while entry.id_at > #ids and record.has_slot_pieces do
    use_pieces()
    local moved = move_first_piece(record, entry.member, entry.key)
    if not moved then break end
    ids = {}
    -- A stopped call may have left tasks in both.
    for _, id in ipairs(moved) do
      if not loaded_keys[base .. 'task:' .. id] then ids[#ids + 1] = id end
    end
    entry.ids, entry.id_at, entry.is_drained = ids, 1, true
  end
  return ids[entry.id_at]
end

-- Ends the turn of `entry`.
local function advance(queue, entry, is_from_rear)
  if is_from_rear then queue.rear_at = queue.rear_at + 1 else queue.page_at = queue.page_at + 1 end
  local has_more, visited = peek(queue, entry), queue.visited
  if entry.is_served then
    queue.turns = queue.turns + 1
    entry.turn = queue.turns
    if has_more then
      queue.rear = queue.rear or {}
      queue.rear[#queue.rear + 1] = entry
    end
  end
  entry.is_gone = not has_more and not entry.has_skipped
  entry.is_served = false
  if not is_from_rear then visited[#visited + 1] = entry end
end

-- Takes the next task off the queue's wheel: returns its id, its key, and what read_claimable returns behind the state; nil if
-- the queue is empty or a limit of the call is reached.
local function next_task(queue)
  while not is_full do
    -- The entry whose turn it is. Within a priority, entries without a turn come first.
    local member, rear, entry = next_unvisited(queue), queue.rear and queue.rear[queue.rear_at], queue.current
    local priority = member and string.byte(member) - 48
    local is_from_rear = rear and (not member or priority < rear.priority)
    if is_from_rear then
      entry = rear
    elseif not member then
      queue.is_empty = true
      return nil
    elseif not entry or entry.member ~= member then
      entry = { member = member, priority = priority, key = queue.slots .. member, ids = nil, id_at = 1, read = 0, taken = nil,
        is_drained = false, has_skipped = false, is_served = false, turn = false, is_gone = false }
      queue.current = entry
    end
    local id = peek(queue, entry)
    if not id then
      advance(queue, entry, is_from_rear)
    else
      local key = base .. 'task:' .. id
      local state, document, placement, lease, expires_at, progress, max_run_ms = read_claimable(key)
      examined = examined + 1
      local has_expired = state and (tonumber(expires_at) or now + 1) <= now
      if state ~= 'ready' or has_expired then
        -- The entry stays in its slot queue, behind all others: `set_back` is more than any seq.
        local set_back, score = 2 ^ 52, nil
        if has_expired then passed_expired = 1 else score = tonumber(call('ZSCORE', entry.key, id)) end
        if not state and document then unreadable[#unreadable + 1] = { queue.index, id } end
        entry.id_at, entry.has_skipped = entry.id_at + 1, true
        if score and score < set_back then
          zset_add(entry.key, digits(score + set_back), id)
          has_set_back = true
        elseif score then
          -- It and all behind it were set back by an earlier call.
          entry.id_at, entry.is_drained = #entry.ids + 1, true
        end
        is_full = examined >= 500
      else
        local bytes = #document + #(progress or '')
        if taken > 0 and bytes > bytes_left then
          is_full = true
        else
          bytes_left, taken = bytes_left - bytes, taken + 1
          entry.id_at, entry.is_served = entry.id_at + 1, true
          if entry.taken then entry.taken[#entry.taken + 1] = id else entry.taken = { 'ZREM', entry.key, id } end
          advance(queue, entry, is_from_rear)
          return id, key, document, placement, lease, expires_at, progress, max_run_ms
        end
      end
    end
  end
end
