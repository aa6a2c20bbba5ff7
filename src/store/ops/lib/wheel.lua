-- wheel: puts tasks into slot queues and takes them out. Before the commit it works out the consequences for the wheel,
-- for its front in the record of the queue, and for waiting workers. See wheel_reader for a picture of the wheel.
--
-- defines: TURNS, changed_slots, slot_of, enqueue, dequeue
-- needs: prelude, transaction, records
-- sets: stage_wheels
-- keys: slot:<queue>:<priority>:<slot>, wheel:<queue>

-- Turns of one priority on a wheel; a score is (9 - priority) * TURNS + turn.
local TURNS = 2 ^ 49
-- Slot queues that change, by key; and by queue, in the order of the call.
local entries, changed_slots = {}, {}

local function slot_of(queue, priority, slot)
  local member = priority .. ':' .. slot
  local key = base .. 'slot:' .. queue .. ':' .. member
  local entry = entries[key]
  if entry then return entry end
  entry = { key = key, member = member, priority = tonumber(priority), added = 0, size = 0 }
  entries[key] = entry
  local list = changed_slots[queue]
  if list then list[#list + 1] = entry else changed_slots[queue] = { entry } end
  return entry
end

-- A slot that comes onto the wheel waits behind those that have had no turn since.
local function enqueue(queue, priority, slot, seq, id)
  local entry = slot_of(queue, priority, slot)
  entry.added = entry.added + 1
  zset_add(entry.key, seq, id)
end

local function dequeue(queue, priority, slot, id)
  local entry = slot_of(queue, priority, slot)
  entry.added = entry.added - 1
  entry.has_removals = true
  zset_remove(entry.key, id)
end

-- Reads the size of each slot queue before this call. If tasks are only added, it is enough to know whether the slot is
-- on the wheel, which one command tells for all such slots, or none if the wheel is empty.
local function read_sizes(wheel, slots, is_empty)
  local growing, members = {}, {}
  for _, entry in ipairs(slots) do
    if entry.has_removals then
      entry.size = call('ZCARD', entry.key)
    else
      local n = #growing + 1
      growing[n], members[n] = entry, entry.member
    end
  end
  if is_empty then return end
  for from = 1, #growing, 4000 do
    local scores = call('ZMSCORE', wheel, unpack(members, from, math.min(from + 3999, #growing)))
    for i, score in ipairs(scores) do growing[from + i - 1].size = score and 1 or 0 end
  end
end

-- Returns the priority of the wheel's first member that is not in `removed`, nil if there is none.
local function front_priority(wheel, removed)
  local from = 0
  while true do
    local page = call('ZRANGE', wheel, from, from + 15)
    for _, member in ipairs(page) do
      if not removed[member] then return tonumber(string.match(member, '^%d+')) end
    end
    if #page < 16 then return nil end
    from = from + 16
  end
end

stage_wheels = function()
  for queue, slots in pairs(changed_slots) do
    local wheel, record = base .. 'wheel:' .. queue, record_of(queue)
    local old, highest_added, removed = front_of(record), nil, nil
    if old or #slots > 1 or slots[1].has_removals then read_sizes(wheel, slots, not old) end
    for i = 1, #slots do
      local entry = slots[i]
      local size, priority = entry.size + entry.added, entry.priority
      if entry.size == 0 and size > 0 then
        if not highest_added or priority > highest_added then highest_added = priority end
        zset_add(wheel, digits((9 - priority) * TURNS + next_counter(L.shard.turn)), entry.member)
      elseif entry.size > 0 and size == 0 then
        removed = removed or {}
        removed[entry.member] = true
        zset_remove(wheel, entry.member)
      end
    end
    if highest_added or removed then
      local new = old
      if removed then new = front_priority(wheel, removed) end
      if highest_added and (not new or highest_added > new) then new = highest_added end
      set_front(queue, new)
      if new and (not old or new > old) and not is_paused(record) then notify('ready ' .. new .. ' ' .. queue) end
    end
  end
end
