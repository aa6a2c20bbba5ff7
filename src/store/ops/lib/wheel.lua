-- wheel: puts tasks into slot queues and takes them out. Before the commit it works out the consequences for the wheel,
-- for its front in the record of the queue, and for waiting workers. See wheel_reader for a picture of the wheel.
--
-- Tasks with a key stand in a slot queue of their own, a keyed one: all scores are 0, and a member is the digest of the key, the
-- seq and the id, so that the tasks of a key lie together in their order.
--
-- defines: TURNS, changed_slots, slot_of, next_seq, enqueue
-- needs: prelude, transaction, records, front, pieces, passes, keyed_member
-- sets: stage_wheels
-- keys: slot:<queue>:<priority>:<slot>, slot:<queue>:<priority>:<slot>:<piece>, slot:<queue>:<priority>:<slot>:k, wheel:<queue>

-- Turns of one priority on a wheel; a score is (9 - priority) * TURNS + turn.
local TURNS = 2 ^ 49
-- Slot queues that change, by key; and by queue, in the order of the call.
local entries, changed_slots = {}, {}

-- Returns the slot queue for tasks with this digest of their key; '': without a key.
local function slot_of(queue, priority, slot, key_digest)
  local member = priority .. ':' .. slot
  if key_digest ~= '' then member = member .. ':k' end
  local key = base .. 'slot:' .. queue .. ':' .. member
  local entry = entries[key]
  if entry then return entry end
  entry = { key = key, member = member, priority = tonumber(priority), added = 0, size = 0 }
  entries[key] = entry
  local list = changed_slots[queue]
  if list then list[#list + 1] = entry else changed_slots[queue] = { entry } end
  return entry
end

-- Returns the position for a task that comes behind all others of its slot queue, or in a keyed one behind those of its key.
-- Only slot queues of tasks without a key become so long that they need pieces.
local function next_seq(task)
  local queue = task[F.queue]
  local record = record_of(queue)
  local seq, may_begin = record[L.queue.seq] + 1, record[L.queue.ready] >= L.queue.piece
  record[L.queue.behind] = true
  if (may_begin or record.has_slot_pieces) and task[F.key_digest] == '' then
    use_pieces()
    local position = next_in_pieces(record, slot_of(queue, task[F.priority], task[F.slot], ''), seq, may_begin)
    if position and position < seq then return position end
    seq = position or seq
  end
  record[L.queue.seq] = seq
  return seq
end

-- Puts a task into its slot queue. A slot that comes onto the wheel waits behind those that have had no turn since.
local function enqueue(task, seq)
  local queue, key_digest = task[F.queue], task[F.key_digest]
  local entry, record, piece = slot_of(queue, task[F.priority], task[F.slot], key_digest), record_of(queue), nil
  if key_digest ~= '' then
    entry.added = entry.added + 1
    zset_add(entry.key, '0', keyed_member(key_digest, seq, task.id))
    return
  end
  if record.has_slot_pieces then
    use_pieces()
    piece = piece_of(record, entry, seq, true)
  end
  if not piece then entry.added = entry.added + 1 end
  zset_add(piece or entry.key, digits(seq), task.id)
end

stage_wheels = function()
  for queue, slots in pairs(changed_slots) do
    local wheel, record = base .. 'wheel:' .. queue, record_of(queue)
    local old, highest_added, removed, growing, members = front_of(record), nil, nil, nil, nil
    -- The size of each slot queue before this call. If tasks are only added, it is enough to know whether the slot is on the
    -- wheel, which one command tells for all such slots, or none if the wheel is empty.
    for i = 1, #slots do
      local entry = slots[i]
      if entry.has_removals then
        entry.size = call('ZCARD', entry.key)
      elseif old then
        growing, members = growing or {}, members or {}
        growing[#growing + 1], members[#members + 1] = entry, entry.member
      end
    end
    for from = 1, growing and #growing or 0, 4000 do
      local scores = call('ZMSCORE', wheel, unpack(members, from, math.min(from + 3999, #growing)))
      for i, score in ipairs(scores) do growing[from + i - 1].size = score and 1 or 0 end
    end
    for i = 1, #slots do
      local entry = slots[i]
      local size, priority = entry.size + entry.added, entry.priority
      if size == 0 and record.has_slot_pieces then
        use_pieces()
        size = move_first_piece(record, entry.member, entry.key) and 1 or 0
      end
      if entry.size == 0 and size > 0 then
        if not highest_added or priority > highest_added then highest_added = priority end
        zset_add(wheel, digits((9 - priority) * TURNS + next_turn()), entry.member)
      elseif entry.size > 0 and size == 0 then
        removed = removed or {}
        removed[entry.member] = true
        zset_remove(wheel, entry.member)
        if record.passes ~= '' then
          local _, set_pass = define_passes()
          set_pass(record, entry.member)
        end
      end
    end
    if highest_added or removed then
      local new = old
      if removed then
        -- That of the first member that stays.
        local from, page = 0, nil
        new = nil
        repeat
          page = call('ZRANGE', wheel, from, from + 15)
          for i = 1, #page do
            if not new and not removed[page[i]] then new = tonumber(string.match(page[i], '^%d+')) end
          end
          from = from + 16
        until new or #page < 16
      end
      if highest_added and (not new or highest_added > new) then new = highest_added end
      set_front(queue, new)
      if new and (not old or new > old) and not is_paused(record) then notify('ready ' .. new .. ' ' .. queue) end
    end
  end
end
