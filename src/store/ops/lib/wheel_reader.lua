-- wheel_reader: takes ready tasks off the wheels of queues, strictly by priority and within a priority slot by slot.
--
--   wheel:q (zset; score (9 - priority) * TURNS + turn)      slot:q:9:17 (zset; score seq)
--
--    priority 9      | priority 4                     .--> id, id, id, ...
--   [9:17] [9:803]   | [4:812] [4:7] [4:11]           |
--     |  front                            rear        slot queue: tasks of one slot and priority, oldest first
--     '------------------------------------------------'
--   A turn takes one task of the slot at the front, or of a keyed slot queue one task of each key. A slot with more tasks goes
--   to the rear of its priority, an empty slot leaves the wheel. A call turns a copy: it reads the wheel in pages, keeps the
--   slots that have had a turn in `rear`; `close_queue` stages the new scores.
--
-- The script sets the limits `max_tasks` and `bytes_left` first.
--
-- defines: open_queue, next_unvisited, peek, advance; max_tasks, bytes_left, taken, is_full, examined, passed_expired,
--   unreadable, has_moved; key_reader, the functions of key_reader once a call needs them
-- needs: prelude, clock, transaction, records, pieces, claimable
-- keys: task:<id>, slot:<queue>:<priority>:<slot>, slot:<queue>:<priority>:<slot>:<piece>, wheel:<queue>, leased:<queue>
local max_tasks, bytes_left
-- Tasks taken; tasks examined; 1 if an expired task was passed over; whether a limit of the call is reached.
local taken, examined, passed_expired, is_full = 0, 0, 0, false
-- Tasks that cannot be read: {index of the queue, id}; whether the call changes the order of tasks that it does not take.
local unreadable, has_moved, key_reader = {}, false, nil

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
  local has_more, visited = nil, queue.visited
  if entry.pass then has_more = key_reader.end_pass(queue, entry) else has_more = peek(queue, entry) end
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
