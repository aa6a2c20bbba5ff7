--[[ claim: hand out ready tasks to waiters, in the order in which they came.

KEYS[1] calls       hash   last call of each pump; the declared key that carries the shard's tag
ARGV[1] base        derives base .. 'task:' .. id (hash), base .. 'slot:' .. queue .. ':' .. priority .. ':' .. slot (zset),
                    base .. 'wheel:' .. queue (zset), base .. 'ready' (zset), base .. 'leased:' .. queue (zset),
                    base .. 'due' (zset), base .. 'deadline' (zset), base .. 'count:' .. queue (hash), base .. 'count' (hash),
                    base .. 'queue:' .. queue (hash), base .. 'claim:' .. digest (set), base .. 'seq' (hash)
                                                                    same tag as KEYS[1]
ARGV[2] pump        who calls
ARGV[3] number      number of this call: repeated, it hands out the same leases, as far as they live
ARGV[4] offset_ms   '' in production; tests move time with it
ARGV[5] bytes       documents handed out at most, but always one task
ARGV[6] queues      how many; then their names
        tokens      how many tokens there are, so many tasks at most; then the tokens
        waiters     how many; then for each: want, lease_ms, worker, digest of its claim id or '', number of queues, then
                    the place of each in the list of queues
RETURNS {more, expired, {waiter, token, id, until, queue, field, …} of each task, {queue, front} of each queue looked at}
        more: 1 if a limit of the call ended it; expired: 1 if tasks were passed over because their deadline had gone;
        waiter, token, queue: places in the call's lists, from 1; front: the priority of what comes next, -1 for nothing
MOVES   ready -> leased
COST    O(n log queue), and a page of the wheel per queue
]]
local SPAN = 2 ^ 49
local NAMES = { 'S', 'q', 's', 'p', 'x', 'd', 'a', 'm', 'g', 'c', 'M', 'A', 'C', 'u', 't' }
local bytes_left = tonumber(ARGV[5])
local at = 6
local function argument()
  at = at + 1
  return ARGV[at - 1]
end
local function arguments()
  local list = {}
  for i = 1, tonumber(argument()) do list[i] = argument() end
  return list
end
local names, tokens = arguments(), arguments()

-- What the caller needs of a task, and nothing that it can know itself.
local function handout(waiter, place, queue, task)
  return { waiter, place, task.id, tonumber(task.u), queue, task.s, task.p, task.d, task.a or '0', task.m, task.g or '',
    task.c, task.x or '' }
end

if last then
  local given, again = cmsgpack.unpack(last), {}
  for _, g in ipairs(given) do
    local task = load(g[3], NAMES)
    if task and task.S == 'leased' and task.t == tokens[g[2]] and tonumber(task.u) > now then
      again[#again + 1] = handout(g[1], g[2], g[4], task)
    end
  end
  return { 1, 0, again, {} }
end

local passed_over = 0
local looked_at, taken_tasks, full = 0, 0, false

-- A queue's wheel as this call turns it: `page` is read from Redis piece by piece, `rear` holds the entries of the
-- current priority that have had their turn and have more.
local function open(place)
  local q = { place = place, name = names[place], page = {}, at = 1, read = 0, rear = {}, rear_at = 1, visited = {} }
  q.wheel = base .. 'wheel:' .. q.name
  if call('HGET', base .. 'queue:' .. q.name, 'paused') == '1' then
    q.paused, q.empty = true, true
    return q
  end
  q.size = call('ZCARD', q.wheel)
  touched[q.wheel] = true
  return q
end

local function unvisited(q)
  if q.at > #q.page and q.read < q.size then
    local page = call('ZRANGE', q.wheel, q.read, q.read + (q.read == 0 and 15 or 63))
    q.read, q.page, q.at = q.read + #page, page, 1
    q.first = q.first or page[1]
    if #page == 0 then q.size = q.read end
  end
  return q.page[q.at]
end

-- The entry whose turn it is: { key, priority, ids, … }, or nil. Strictly by priority; within it those that were not
-- visited yet come before those that were.
local function entry_of(q)
  local member, again = unvisited(q), q.rear[q.rear_at]
  local priority = member and tonumber(string.match(member, '^%d+'))
  if again and (not member or priority < again.priority) then return again, true end
  if not member then return nil end
  if not q.current or q.current.member ~= member then
    q.current = { member = member, priority = priority, key = base .. 'slot:' .. q.name .. ':' .. member, ids = {}, at = 1, read = 0 }
  end
  return q.current, false
end

-- The next id of an entry, read ahead by as much as this call can still use of it.
local function peek(q, entry)
  if entry.at > #entry.ids and not entry.drained then
    local ahead = math.ceil((#tokens - taken_tasks) / math.max(1, q.size)) + 1
    entry.ids = call('ZRANGE', entry.key, entry.read, entry.read + ahead - 1)
    touched[entry.key] = true
    entry.at, entry.read = 1, entry.read + #entry.ids
    entry.drained = #entry.ids < ahead
  end
  return entry.ids[entry.at]
end

-- The turn of `entry` is over.
local function pass(q, entry, again)
  if again then q.rear_at = q.rear_at + 1 else q.at = q.at + 1 end
  if peek(q, entry) then
    if entry.served then
      entry.score = (9 - entry.priority) * SPAN + next_of('turn')
      q.rear[#q.rear + 1] = entry
    end
  elseif entry.skipped then
    if entry.served then entry.score = (9 - entry.priority) * SPAN + next_of('turn') end
  else
    entry.score, entry.gone = nil, true
  end
  entry.served = false
  q.visited[entry.member] = entry
end

-- The next task of the queue, taken out of it; nil when it has none, or a limit of the call is reached.
local function take(q)
  while not full do
    local entry, again = entry_of(q)
    if not entry then
      q.empty = true
      return nil
    end
    local id = peek(q, entry)
    if not id then
      pass(q, entry, again)
    else
      local task = load(id, NAMES)
      looked_at = looked_at + 1
      local expired = task and (tonumber(task.x) or now + 1) <= now
      -- One without its document cannot be handed out, and must not hold up those behind it.
      if not task or task.S ~= 'ready' or not task.d or expired then
        if expired then passed_over = 1 end
        entry.at, entry.skipped = entry.at + 1, true
        full = looked_at >= 500
      elseif taken_tasks > 0 and #task.d + #(task.g or '') > bytes_left then
        full = true
      else
        bytes_left = bytes_left - #task.d - #(task.g or '')
        entry.at, entry.served = entry.at + 1, true
        remove(entry.key, id)
        pass(q, entry, again)
        return task
      end
    end
  end
end

-- Hands a task to waiter `w`.
local function give(w, waiter, task, q)
  taken_tasks = taken_tasks + 1
  local lease_ms = w.lease_ms
  local max_run = tonumber(task.M) or 0
  if max_run > 0 and max_run < lease_ms then lease_ms = max_run end
  local acquired = (tonumber(task.A) or 0) + 1
  task.u = now + lease_ms
  local fields = { 'HSET', task.key, 'S', 'leased', 't', tokens[taken_tasks], 'u', task.u, 'h', now, 'L', lease_ms, 'W', w.worker,
    'A', acquired }
  if w.digest ~= '' then
    write('SADD', base .. 'claim:' .. w.digest, task.id)
  end
  if w.digest ~= '' or task.C then
    fields[#fields + 1] = 'C'
    fields[#fields + 1] = w.digest
  end
  writes[#writes + 1] = fields
  add(base .. 'leased:' .. q.name, task.u, task.id)
  due(q.name, task.u)
  if task.x and task.x ~= '' then remove(base .. 'deadline', task.id) end
  q.given = (q.given or 0) + 1
  return handout(waiter, taken_tasks, q.place, task)
end

local opened, given, remembered = {}, {}, {}
for waiter = 1, tonumber(argument()) do
  local w = { want = tonumber(argument()), lease_ms = tonumber(argument()), worker = argument(), digest = argument() }
  for _, place in ipairs(arguments()) do
    place = tonumber(place)
    local q = opened[place]
    if not q then
      q = open(place)
      opened[place] = q
    end
    while w.want > 0 and not q.empty and not full do
      if taken_tasks == #tokens then full = true break end
      local task = take(q)
      if not task then break end
      w.want = w.want - 1
      given[#given + 1] = give(w, waiter, task, q)
      remembered[#remembered + 1] = { waiter, taken_tasks, task.id, place }
    end
  end
end

local fronts = {}
for place, q in pairs(opened) do
  -- The entry at the front now: one that was not visited, or one that was and stays.
  local front
  for member, entry in pairs(q.visited) do
    if entry.gone then
      remove(q.wheel, member)
    else
      if entry.score then add(q.wheel, entry.score, member) end
      if not front or entry.priority > front then front = entry.priority end
    end
  end
  local member = not q.paused and unvisited(q)
  local priority = member and tonumber(string.match(member, '^%d+'))
  if priority and (not front or priority > front) then front = priority end
  fronts[#fronts + 1] = { place, q.empty and -1 or front or -1 }
  if q.given then
    if not front then
      remove(base .. 'ready', q.name)
    elseif front ~= tonumber(string.match(q.first, '^%d+')) then
      add(base .. 'ready', front, q.name)
    end
    count(q.name, 'ready', -q.given)
    count(q.name, 'leased', q.given)
  end
end
if #given > 0 then commit(cmsgpack.pack(remembered)) end
return { full and 1 or 0, passed_over, given, fronts }
