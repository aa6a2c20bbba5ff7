--[[ claim: hand out ready tasks to waiters, in the order in which they came.

KEYS[1] calls       hash   last call of each pump; the declared key that carries the shard's tag
ARGV[1] base        derives base .. 'task:' .. id (hash), base .. 'slot:' .. queue .. ':' .. priority .. ':' .. slot (zset),
                    base .. 'wheel:' .. queue (zset), base .. 'ready' (zset), base .. 'leased:' .. queue (zset),
                    base .. 'due' (zset), base .. 'deadline' (zset), base .. 'count:' .. queue (hash), base .. 'count' (hash),
                    base .. 'queue:' .. queue (hash), base .. 'claim:' .. digest (set), base .. 'seq' (hash),
                    base .. 'stats:' .. bucket (hash), base .. 'listen' (string)
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
local NAMES = { 'S', 'x', 'd', 'g', 'a', 'm', 'c', 'r', 'M', 'A', 'C' }
-- Where they stand in a task that was read: with a hundred tasks a call, tables by name are a tenth of the cost.
local STATE, EXPIRES, DOCUMENT, PROGRESS, ATTEMPTS, MAX_ATTEMPTS, CREATED, READY, MAX_RUN, ACQUIRED, CLAIM = 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11
local bytes_left = tonumber(ARGV[5])
local at = 6
local function arguments()
  local from, to = at + 1, at + ARGV[at]
  at = to + 1
  return { unpack(ARGV, from, to) }
end
local names, tokens = arguments(), arguments()

-- What the caller needs of a task, and nothing that it can know itself.
local function handout(waiter, place, id, lease_until, queue, slot, priority, task)
  return { waiter, place, id, lease_until, queue, slot, priority, task[DOCUMENT], task[ATTEMPTS] or '0', task[MAX_ATTEMPTS],
    task[PROGRESS] or '', task[CREATED], task[EXPIRES] or '' }
end

if last then
  local given, again = cmsgpack.unpack(last), {}
  local names = { unpack(NAMES) }
  for _, name in ipairs({ 's', 'p', 'u', 't' }) do names[#names + 1] = name end
  for i = 1, #given, 4 do
    local waiter, token, id, queue = unpack(given, i, i + 3)
    local task = read(base .. 'task:' .. id, names)
    if task then
      local slot, priority, lease_until, held = unpack(task, #NAMES + 1, #names)
      if task[STATE] == 'leased' and held == tokens[token] and tonumber(lease_until) > now then
        again[#again + 1] = handout(waiter, token, id, tonumber(lease_until), queue, slot, priority, task)
      end
    end
  end
  return cmsgpack.pack({ 1, 0, again, {} })
end

local passed_over = 0
local looked_at, taken_tasks, full = 0, 0, false

-- A priority is one digit.
local function priority_of(member)
  return tonumber(string.sub(member, 1, 1))
end

-- A queue's wheel as this call turns it: `page` is read from Redis piece by piece, `rear` holds the entries of the
-- current priority that have had their turn and have more, `since` how many of those given became ready when.
local function open(place)
  local q = { place = place, name = names[place], page = {}, at = 1, read = 0, size = 0, rear = {}, rear_at = 1, visited = {},
    turns = 0, given = 0, since = {}, slots = base .. 'slot:' .. names[place] .. ':', leased = base .. 'leased:' .. names[place] }
  if call('HGET', base .. 'queue:' .. q.name, 'paused') == '1' then
    q.empty = true
    return q
  end
  q.wheel = base .. 'wheel:' .. q.name
  q.page = call('ZRANGE', q.wheel, 0, 15)
  touched[q.wheel] = true
  q.read, q.first = #q.page, q.page[1]
  q.size = q.read < 16 and q.read or call('ZCARD', q.wheel)
  -- Of each entry so many ids are read ahead: what this call can use of it if all have as many, and one that says whether
  -- there are more.
  q.ahead = math.ceil((#tokens - taken_tasks) / math.max(1, q.size)) + 1
  q.last_ahead = digits(q.ahead - 1)
  return q
end

local function unvisited(q)
  if q.at > #q.page and q.read < q.size then
    q.page, q.at = call('ZRANGE', q.wheel, q.read, q.read + 63), 1
    q.read = q.read + #q.page
    if #q.page == 0 then q.size = q.read end
  end
  return q.page[q.at]
end

-- The entry whose turn it is: { key, priority, ids, … }, or nil. Strictly by priority; within it those that were not
-- visited yet come before those that were.
local function entry_of(q)
  local member, again = unvisited(q), q.rear[q.rear_at]
  local priority = member and priority_of(member)
  if again and (not member or priority < again.priority) then return again, true end
  if not member then return nil end
  if not q.current or q.current.member ~= member then
    q.current = { member = member, priority = priority, slot = string.sub(member, 3), key = q.slots .. member, ids = {}, at = 1,
      read = 0, taken = {}, drained = false, skipped = false, served = false, turn = false, gone = false }
  end
  return q.current, false
end

-- The next id of an entry.
local function peek(q, entry)
  if entry.at > #entry.ids and not entry.drained then
    local from, to = '0', q.last_ahead
    if entry.read > 0 then from, to = entry.read, entry.read + q.ahead - 1 end
    entry.ids = call('ZRANGE', entry.key, from, to)
    touched[entry.key] = true
    entry.at, entry.read = 1, entry.read + #entry.ids
    entry.drained = #entry.ids < q.ahead
  end
  return entry.ids[entry.at]
end

-- The turn of `entry` is over.
local function pass(q, entry, again)
  if again then q.rear_at = q.rear_at + 1 else q.at = q.at + 1 end
  local more = peek(q, entry)
  if entry.served then
    q.turns = q.turns + 1
    entry.turn = q.turns
    if more then q.rear[#q.rear + 1] = entry end
  end
  entry.gone = not more and not entry.skipped
  entry.served = false
  q.visited[entry.member] = entry
end

-- The next task of the queue, taken out of it: its entry, its id, its key and itself; nil when there is none, or a limit
-- of the call is reached.
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
      local key = base .. 'task:' .. id
      local task = read(key, NAMES)
      looked_at = looked_at + 1
      local expired = task and (tonumber(task[EXPIRES]) or now + 1) <= now
      -- One without its document cannot be handed out, and must not hold up those behind it.
      if not task or task[STATE] ~= 'ready' or not task[DOCUMENT] or expired then
        if expired then passed_over = 1 end
        entry.at, entry.skipped = entry.at + 1, true
        full = looked_at >= 500
      else
        local size = #task[DOCUMENT] + #(task[PROGRESS] or '')
        if taken_tasks > 0 and size > bytes_left then
          full = true
        else
          bytes_left = bytes_left - size
          entry.at, entry.served = entry.at + 1, true
          entry.taken[#entry.taken + 1] = id
          pass(q, entry, again)
          return entry, id, key, task
        end
      end
    end
  end
end

-- A lease of so many ms that begins now, its numbers as digits too.
local leases = {}
local function lease_of(ms)
  local lease = leases[ms]
  if not lease then
    lease = { until_ms = now + ms, until_digits = digits(now + ms), digits = digits(ms) }
    leases[ms] = lease
  end
  return lease
end

-- Hands a task to waiter `w`.
local function give(w, q, entry, id, key, task)
  taken_tasks = taken_tasks + 1
  local max_run = tonumber(task[MAX_RUN]) or 0
  local lease = lease_of(max_run > 0 and math.min(max_run, w.lease_ms) or w.lease_ms)
  local acquired = task[ACQUIRED] and digits(task[ACQUIRED] + 1) or '1'
  local fields = { 'HSET', key, 'S', 'leased', 't', tokens[taken_tasks], 'u', lease.until_digits, 'h', now_digits,
    'L', lease.digits, 'W', w.worker, 'A', acquired }
  if w.digest ~= '' then
    write('SADD', base .. 'claim:' .. w.digest, id)
  end
  if w.digest ~= '' or task[CLAIM] then
    fields[#fields + 1] = 'C'
    fields[#fields + 1] = w.digest
  end
  writes[#writes + 1] = fields
  add(q.leased, lease.until_digits, id)
  due(q.name, lease.until_ms)
  if task[EXPIRES] and task[EXPIRES] ~= '' then remove(base .. 'deadline', id) end
  local since = task[READY] or task[CREATED]
  q.since[since] = (q.since[since] or 0) + 1
  q.given = q.given + 1
  tell(id, q.name, 'ready', 'leased')
  return handout(w.place, taken_tasks, id, lease.until_ms, q.place, entry.slot, entry.priority, task)
end

-- `remembered`: of each task given its waiter, its token, its id and its queue.
local opened, given, remembered = {}, {}, {}

local function serve(w, places)
  for i = 1, #places do
    local place = tonumber(places[i])
    local q = opened[place]
    if not q then
      q = open(place)
      opened[place] = q
    end
    while w.want > 0 and not q.empty and not full do
      if taken_tasks == #tokens then full = true break end
      local entry, id, key, task = take(q)
      if not entry then break end
      w.want = w.want - 1
      given[#given + 1] = give(w, q, entry, id, key, task)
      local n = #remembered
      remembered[n + 1], remembered[n + 2], remembered[n + 3], remembered[n + 4] = w.place, taken_tasks, id, place
    end
  end
end

local waiters = tonumber(ARGV[at])
at = at + 1
for place = 1, waiters do
  local w = { place = place, want = tonumber(ARGV[at]), lease_ms = tonumber(ARGV[at + 1]), worker = ARGV[at + 2], digest = ARGV[at + 3] }
  at = at + 4
  serve(w, arguments())
end

local function by_turn(one, other)
  return one.turn < other.turn
end

-- Stages how the wheel stands after this call. Returns the priority at its front, nil where it is empty.
local function turn(q)
  local front, staying, of_priority, emptied = nil, {}, {}, {}
  local function stays(priority)
    of_priority[priority] = (of_priority[priority] or 0) + 1
    if not front or priority > front then front = priority end
  end
  for member, entry in pairs(q.visited) do
    if entry.gone then
      remove(q.wheel, member)
      emptied[#emptied + 1] = entry.key
    else
      stays(entry.priority)
      if entry.turn then staying[#staying + 1] = entry end
      if #entry.taken > 0 then removals[entry.key] = entry.taken end
    end
  end
  local member = unvisited(q)
  if member then stays(priority_of(member)) end
  table.sort(staying, by_turn)
  for _, entry in ipairs(staying) do
    -- One that is alone in its priority is at the rear of it already.
    if of_priority[entry.priority] > 1 then
      add(q.wheel, digits((9 - entry.priority) * SPAN + next_of('turn')), entry.member)
    end
  end
  if #emptied > 0 then ending('DEL', unpack(emptied)) end
  return front
end

local fronts = {}
for place, q in pairs(opened) do
  local front = turn(q)
  fronts[#fronts + 1] = { place, q.empty and -1 or front or -1 }
  if q.given > 0 then
    if not front then
      remove(base .. 'ready', q.name)
    elseif front ~= priority_of(q.first) then
      add(base .. 'ready', front, q.name)
    end
    for since, number in pairs(q.since) do have_waited(q.name, math.max(now - since, 0), number) end
    count(q.name, 'ready', -q.given)
    count(q.name, 'leased', q.given)
  end
end
if #given > 0 then
  measured('waited', waits)
  commit(cmsgpack.pack(remembered))
end
return cmsgpack.pack({ full and 1 or 0, passed_over, given, fronts })
