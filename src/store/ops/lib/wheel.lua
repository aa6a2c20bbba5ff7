-- wheel: tasks enter and leave slot queues; `turn_wheels` works out, before the first write, what that means for the
-- wheel, for `ready` and for those who wait.
local SPAN = 2 ^ 49
local entered = {}

local function queue_of(name)
  local q = entered[name]
  if not q then
    q = { name = name, wheel = base .. 'wheel:' .. name, slots = {}, order = {} }
    entered[name] = q
  end
  return q
end

local function slot_of(q, priority, slot)
  local member = priority .. ':' .. slot
  local s = q.slots[member]
  if not s then
    s = { key = base .. 'slot:' .. q.name .. ':' .. member, priority = tonumber(priority), by = 0, had = 0, member = member }
    q.slots[member] = s
    q.order[#q.order + 1] = s
  end
  return s
end

-- `front`: should its slot come onto the wheel with this task, it comes to the front of its priority.
local function enter(queue, priority, slot, seq, id, front)
  local s = slot_of(queue_of(queue), priority, slot)
  s.by = s.by + 1
  if front or s.front then s.front = front end
  add(s.key, seq, id)
end

local function leave(queue, priority, slot, id)
  local s = slot_of(queue_of(queue), priority, slot)
  s.by = s.by - 1
  s.left = true
  remove(s.key, id)
end

-- Works out how many tasks each slot queue had. Where tasks only enter it is enough to know whether it had any: then
-- it is on the wheel, and that is asked for all of them at once.
local function look_at_slots(q)
  local entering = {}
  for _, s in ipairs(q.order) do
    if s.left then
      s.had = call('ZCARD', s.key)
      touched[s.key] = true
    else
      entering[#entering + 1] = s
    end
  end
  for from = 1, #entering, 4000 do
    local members = {}
    for i = from, math.min(from + 3999, #entering) do members[#members + 1] = entering[i].member end
    for i, score in ipairs(call('ZMSCORE', q.wheel, unpack(members))) do entering[from + i - 1].had = score and 1 or 0 end
  end
  touched[q.wheel] = true
end

-- The priority of the first entry of the wheel that `gone` does not name, or nil.
local function front_of(q, gone)
  local from = 0
  while true do
    local page = call('ZRANGE', q.wheel, from, from + 15)
    for _, member in ipairs(page) do
      if not gone[member] then return tonumber(string.match(member, '^%d+')) end
    end
    if #page < 16 then return nil end
    from = from + 16
  end
end

local function front_score(q, priority)
  local from = (9 - priority) * SPAN
  local first = call('ZRANGEBYSCORE', q.wheel, digits(from), '(' .. digits(from + SPAN), 'WITHSCORES', 'LIMIT', 0, 1)
  return first[2] and tonumber(first[2]) - 1 or from + next_of('turn')
end

-- The front of a queue's wheel goes from priority `old` to `new` (nil: empty).
local function front_moved(q, old, new)
  if old == new or call('HGET', base .. 'queue:' .. q.name, 'paused') == '1' then return end
  if new then
    add(base .. 'ready', new, q.name)
    if not old or new > old then hint('ready ' .. new .. ' ' .. q.name) end
  else
    remove(base .. 'ready', q.name)
  end
end

local function turn_wheels()
  for _, q in pairs(entered) do
    look_at_slots(q)
    local best, changed, gone, fronts = nil, false, {}, {}
    for _, s in ipairs(q.order) do
      local has = s.had + s.by
      if s.had == 0 and has > 0 then
        changed = true
        if not best or s.priority > best then best = s.priority end
        local score
        if s.front then
          score = (fronts[s.priority] or front_score(q, s.priority) + 1) - 1
          fronts[s.priority] = score
        else
          score = (9 - s.priority) * SPAN + next_of('turn')
        end
        add(q.wheel, digits(score), s.member)
      elseif s.had > 0 and has == 0 then
        changed = true
        gone[s.member] = true
        remove(q.wheel, s.member)
      end
    end
    if changed then
      local old, new = front_of(q, {}), nil
      if next(gone) then new = front_of(q, gone) else new = old end
      if best and (not new or best > new) then new = best end
      front_moved(q, old, new)
    end
  end
end
