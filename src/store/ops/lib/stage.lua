-- stage: writes are collected while the script reads, and carried out together at its end by `commit`: first what
-- adds, then what removes, and a key that a removal may empty is not touched after it; then the hints, and what changed.
local adds, removals, writes, endings, hints, touched = {}, {}, {}, {}, {}, {}

local function into(lists, key, a, b)
  local list = lists[key]
  if not list then
    lists[key] = { a, b }
    return
  end
  local n = #list
  list[n + 1] = a
  if b then list[n + 2] = b end
end

local function add(key, score, member)
  into(adds, key, score, member)
end

local function remove(key, member)
  into(removals, key, member)
end

-- A write that cannot empty its key.
local function write(...)
  writes[#writes + 1] = { ... }
end

-- A write that may empty its key, or deletes it.
local function ending(...)
  endings[#endings + 1] = { ... }
end

local function hint(text)
  hints[#hints + 1] = text
end

-- Counts, of the queue and of the shard: by how much each field of each key changes.
local changes, books = {}, {}

local function changes_of(key)
  changes[key] = changes[key] or {}
  return changes[key]
end

local function count(queue, field, by)
  local book = books[queue]
  if not book then
    book = { changes_of(base .. 'count:' .. queue), changes_of(base .. 'count') }
    books[queue] = book
  end
  local own, all = book[1], book[2]
  own[field] = (own[field] or 0) + by
  all[field] = (all[field] or 0) + by
end

-- What is reported behind all writes, and how; the fragment `news` sets both.
local news, report
-- What the pump has at hand of what was measured, if this call measures anything; the fragment `measure` sets it.
local at_hand

-- The shard's counters.
local counters
local function next_of(name)
  if not counters then
    local values = call('HMGET', base .. 'seq', 'seq', 'turn')
    touched[base .. 'seq'] = true
    -- Turns begin in the middle of their range, so that there is as much room before the first as after it.
    counters = { seq = tonumber(values[1] or 0), turn = tonumber(values[2] or 2 ^ 48) }
  end
  counters[name] = counters[name] + 1
  return counters[name]
end

-- `due` holds for each queue a time not later than its earliest scheduled or leased one.
local dues = {}
local function due(queue, at)
  if not dues[queue] or at < dues[queue] then dues[queue] = at end
end

-- The task waits for `at`.
local function postpone(task, at)
  add(base .. 'scheduled:' .. task.q, at, task.id)
  due(task.q, at)
end

-- A task that waits again is under its deadline again.
local function under_deadline(task)
  if task.x and task.x ~= '' then add(base .. 'deadline', task.x, task.id) end
end

local function settle_due()
  local key, earliest = base .. 'due', nil
  for queue, at in pairs(dues) do
    local score = call('ZSCORE', key, queue)
    touched[key] = true
    if not score or at < tonumber(score) then
      add(key, at, queue)
      if not earliest or at < earliest then earliest = at end
    end
  end
  if earliest then
    local head = call('ZRANGE', key, 0, 0, 'WITHSCORES')
    if not head[2] or earliest < tonumber(head[2]) then hint('due ' .. digits(earliest)) end
  end
end

local function each_chunk(name, lists)
  for key, list in pairs(lists) do
    local n = #list
    if n <= 4000 then
      call(name, key, unpack(list))
    else
      for from = 1, n, 4000 do call(name, key, unpack(list, from, math.min(from + 3999, n))) end
    end
  end
end

-- The counts that change, behind all other writes.
local function settle_counts()
  for key, by in pairs(changes) do
    local fields, set = {}, { 'HSET', key }
    for field, n in pairs(by) do
      if n ~= 0 then fields[#fields + 1] = field end
    end
    if #fields > 0 then
      touched[key] = true
      for i, had in ipairs(call('HMGET', key, unpack(fields))) do
        set[#set + 1] = fields[i]
        set[#set + 1] = digits((had or 0) + by[fields[i]])
      end
      writes[#writes + 1] = set
    end
  end
end

-- `answer`: packed, it is what a repetition of this call gets. Returns it.
local function commit(answer)
  settle_due()
  settle_counts()
  local unseen = {}
  local function see(key)
    if not touched[key] then
      touched[key] = true
      unseen[#unseen + 1] = key
    end
  end
  for key in pairs(adds) do see(key) end
  for key in pairs(removals) do see(key) end
  for _, w in ipairs(writes) do see(w[2]) end
  for _, w in ipairs(endings) do see(w[2]) end
  for from = 1, #unseen, 4000 do call('EXISTS', unpack(unseen, from, math.min(from + 3999, #unseen))) end

  for _, w in ipairs(writes) do call(unpack(w)) end
  if counters then call('HSET', base .. 'seq', 'seq', digits(counters.seq), 'turn', digits(counters.turn)) end
  each_chunk('ZADD', adds)
  local record = number .. ' ' .. now_digits .. ' ' .. answer
  if at_hand then call('HSET', calls, pump, record, pump .. ':sums', at_hand) else call('HSET', calls, pump, record) end
  each_chunk('ZREM', removals)
  for _, w in ipairs(endings) do call(unpack(w)) end
  for _, text in ipairs(hints) do call('SPUBLISH', base .. 'signals', text) end
  if news then report() end
  return answer
end

-- A task's fields in the order of `names`, `false` where it has none; nil where there is no such task. `names[1]` is 'S'.
-- Writes being staged, a task that is read twice would be moved twice.
local function read(key, names)
  if touched[key] then error('TWICE one task in a call') end
  touched[key] = true
  local values = call('HMGET', key, unpack(names))
  return values[1] and values or nil
end

-- The same by name, with its id and its key.
local function load(id, names)
  local key = base .. 'task:' .. id
  local values = read(key, names)
  if not values then return nil end
  -- Made with room for what is read as a rule: a table that grows is laid out anew each time.
  local task = { id = id, key = key, S = values[1], q = false, s = false, p = false, n = false, x = false, t = false, u = false,
    h = false, C = false, D = false, o = false, R = false, k = false }
  for i = 2, #names do task[names[i]] = values[i] end
  return task
end
