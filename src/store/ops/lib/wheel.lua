-- wheel: puts tasks into slot queues and takes them out. Before the commit it works out the consequences for the wheel,
-- for its front in the record of the queue, and for waiting workers. See wheel_reader for a picture of the wheel.
--
-- defines: TURNS, enqueue, dequeue
-- needs: prelude, transaction, records
-- registers: before_commit, which updates the wheels of the queues that have changed
-- keys: slot:<queue>:<priority>:<slot>, wheel:<queue>

-- Turns of one priority on a wheel; a score is (9 - priority) * TURNS + turn.
local TURNS = 2 ^ 49
-- Queues whose slot queues change, by name.
local changed_queues = {}

local function queue_of(name)
  local queue = changed_queues[name]
  if not queue then
    queue = { name = name, wheel = base .. 'wheel:' .. name, slots = {}, order = {} }
    changed_queues[name] = queue
  end
  return queue
end

local function slot_of(queue, priority, slot)
  local member = priority .. ':' .. slot
  local entry = queue.slots[member]
  if not entry then
    entry = { key = base .. 'slot:' .. queue.name .. ':' .. member, priority = tonumber(priority), added = 0, size = 0, member = member }
    queue.slots[member] = entry
    queue.order[#queue.order + 1] = entry
  end
  return entry
end

-- A slot that comes onto the wheel waits behind those that have had no turn since.
local function enqueue(queue, priority, slot, seq, id)
  local entry = slot_of(queue_of(queue), priority, slot)
  entry.added = entry.added + 1
  zset_add(entry.key, seq, id)
end

local function dequeue(queue, priority, slot, id)
  local entry = slot_of(queue_of(queue), priority, slot)
  entry.added = entry.added - 1
  entry.has_removals = true
  zset_remove(entry.key, id)
end

-- Reads the size of each slot queue before this call. If tasks are only added, it is enough to know whether the slot is
-- on the wheel, which one command tells for all such slots, or none if the wheel is empty.
local function read_sizes(queue, is_empty)
  local growing = {}
  for _, entry in ipairs(queue.order) do
    if entry.has_removals then
      entry.size = call('ZCARD', entry.key)
      touched[entry.key] = true
    else
      growing[#growing + 1] = entry
    end
  end
  if is_empty then return end
  for from = 1, #growing, 4000 do
    local members = {}
    for i = from, math.min(from + 3999, #growing) do members[#members + 1] = growing[i].member end
    for i, score in ipairs(call('ZMSCORE', queue.wheel, unpack(members))) do growing[from + i - 1].size = score and 1 or 0 end
  end
  touched[queue.wheel] = true
end

-- Returns the priority of the wheel's first member that is not in `removed`, nil if there is none.
local function front_priority(queue, removed)
  local from = 0
  while true do
    local page = call('ZRANGE', queue.wheel, from, from + 15)
    for _, member in ipairs(page) do
      if not removed[member] then return tonumber(string.match(member, '^%d+')) end
    end
    if #page < 16 then return nil end
    from = from + 16
  end
end

before_commit[#before_commit + 1] = function()
  for _, queue in pairs(changed_queues) do
    local record = record_of(queue.name)
    local old = front_of(record)
    read_sizes(queue, not old)
    local highest_added, is_changed, removed = nil, false, {}
    for _, entry in ipairs(queue.order) do
      local size = entry.size + entry.added
      if entry.size == 0 and size > 0 then
        is_changed = true
        if not highest_added or entry.priority > highest_added then highest_added = entry.priority end
        zset_add(queue.wheel, digits((9 - entry.priority) * TURNS + next_counter('turn')), entry.member)
      elseif entry.size > 0 and size == 0 then
        is_changed = true
        removed[entry.member] = true
        zset_remove(queue.wheel, entry.member)
      end
    end
    if is_changed then
      local new = old
      if next(removed) then new = front_priority(queue, removed) end
      if highest_added and (not new or highest_added > new) then new = highest_added end
      set_front(queue.name, new)
      if new and (not old or new > old) and not is_paused(record) then notify('ready ' .. new .. ' ' .. queue.name) end
    end
  end
end
