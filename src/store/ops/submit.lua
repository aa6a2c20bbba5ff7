--[[ submit: store new tasks and put them where they wait.

KEYS[1] calls       hash   last call of each pump; the declared key that carries the shard's tag
ARGV[1] base        derives base .. 'task:' .. id (hash), base .. 'slot:' .. queue .. ':' .. priority .. ':' .. slot (zset),
                    base .. 'wheel:' .. queue (zset), base .. 'ready' (zset), base .. 'scheduled:' .. queue (zset),
                    base .. 'due' (zset), base .. 'deadline' (zset), base .. 'count:' .. queue (hash), base .. 'count' (hash),
                    base .. 'queues' (zset), base .. 'queue:' .. queue (hash), base .. 'dedupe:' .. queue .. ':' .. digest (string),
                    base .. 'seq' (hash)                            same tag as KEYS[1]
ARGV[2] pump        who calls
ARGV[3] number      number of this call: repeated, it answers as before
ARGV[4] offset_ms   '' in production; tests move time with it
ARGV[5] within_ms   how far run_at may lie from now
ARGV[6] count       of tasks; then for each: id, queue, priority, slot, delay_ms, run_at or '', expires_in_ms or '',
                    digest of its dedupe key or '', mode, window_ms or '', number of fields, then field, value of each
RETURNS {'created', state, now, run_at | '', expires_at | ''} | {'known'} | {'kept', id} | {'replaced', id} | {'too_far'}, each
MOVES   - -> ready, - -> scheduled; replace and debounce: ready <-> scheduled
COST    O(n log queue)
]]
if last then return last end

local LIVES = { ready = true, scheduled = true, leased = true }
local within = tonumber(ARGV[5])
local listed, some_known = {}, nil

-- A queue that counts a task is listed: the list is written first.
local function list_queue(queue)
  if listed[queue] then return end
  listed[queue] = true
  if tallies[base .. 'count:' .. queue].had.submitted == 0 then write('ZADD', base .. 'queues', 0, queue) end
end

-- Where a task goes that runs at `run` (nil: at once).
local function place(task, run)
  if run then
    postpone(task, run)
    return 'scheduled'
  end
  enter(task.q, task.p, task.s, task.n, task.id)
  return 'ready'
end

local function create(item)
  local seq = digits(next_of('seq'))
  local task = { id = item.id, q = item.queue, p = item.priority, s = item.slot, n = seq }
  local state = place(task, item.run)
  local fields = { 'HSET', item.key, 'S', state, 'q', item.queue, 's', item.slot, 'p', item.priority, 'n', seq, 'c', now_digits,
    unpack(ARGV, item.fields_from, item.fields_to) }
  local function field(name, value)
    fields[#fields + 1] = name
    fields[#fields + 1] = value
  end
  if item.run then field('w', item.run) end
  if item.expires then
    field('x', item.expires)
    field('X', item.expires_in)
    add(base .. 'deadline', item.expires, item.id)
  end
  if item.digest ~= '' then
    field('D', item.digest)
    local until_ms = item.window ~= '' and digits(now + tonumber(item.window)) or ''
    if item.window ~= '' then
      field('Y', until_ms)
      write('SET', item.holder_key, item.id .. until_ms, 'PX', item.window)
    else
      write('SET', item.holder_key, item.id .. until_ms)
    end
  end
  writes[#writes + 1] = fields
  count(item.queue, 'submitted', 1)
  count(item.queue, state, 1)
  list_queue(item.queue)
  return { 'created', state, now, item.run or '', item.expires or '' }
end

-- A waiting task takes over the content of `item`; debounce also its delay.
local function replace(task, item)
  local fields = { 'HSET', task.key, 'p', item.priority, 'x', item.expires or '', 'X', item.expires and item.expires_in or '' }
  for i = item.fields_from, item.fields_to do fields[#fields + 1] = ARGV[i] end
  if item.expires then
    add(base .. 'deadline', item.expires, task.id)
  elseif task.x and task.x ~= '' then
    remove(base .. 'deadline', task.id)
  end
  local state, run = task.S, nil
  if item.mode == 'debounce' then
    state, run = item.run and 'scheduled' or 'ready', item.run
    fields[#fields + 1] = 'w'
    fields[#fields + 1] = run or ''
  end
  local requeued = task.S == 'ready' and (state ~= 'ready' or task.p ~= item.priority)
  if requeued then leave(task.q, task.p, task.s, task.id) end
  if task.S == 'scheduled' and state == 'ready' then remove(base .. 'scheduled:' .. task.q, task.id) end
  task.p = item.priority
  if run then
    postpone(task, run)
  elseif state == 'ready' and (requeued or task.S ~= 'ready') then
    enter(task.q, task.p, task.s, task.n, task.id)
    fields[#fields + 1] = 'r'
    fields[#fields + 1] = now
  end
  if state ~= task.S then
    fields[#fields + 1] = 'S'
    fields[#fields + 1] = state
    move(task.q, task.S, state)
  end
  writes[#writes + 1] = fields
  return { 'replaced', task.id }
end

local function submit(item)
  if item.run and item.run - now > within then return { 'too_far' } end
  if item.run and item.run <= now then item.run = nil end
  if some_known and call('EXISTS', item.key) == 1 then return { 'known' } end
  if item.digest == '' then return create(item) end
  item.holder_key = base .. 'dedupe:' .. item.queue .. ':' .. item.digest
  touched[item.holder_key] = true
  local record = call('GET', item.holder_key)
  if not record then return create(item) end
  local until_ms = tonumber(string.sub(record, 17))
  local holder = load(string.sub(record, 1, 16), { 'S', 'q', 's', 'p', 'n', 'x' })
  if not holder or (until_ms and until_ms <= now) then return create(item) end
  -- One that has ended holds nothing: its record should have gone with its end.
  if not LIVES[holder.S] then return create(item) end
  if item.mode == 'keep' then return { 'kept', holder.id } end
  if holder.S == 'leased' then
    local created = create(item)
    write('HSET', holder.key, 'Y', digits(now))
    return created
  end
  return replace(holder, item)
end

local items, keys, at = {}, {}, 7
for i = 1, tonumber(ARGV[6]) do
  local delay, expires_in, from = tonumber(ARGV[at + 4]), ARGV[at + 6], at + 11
  local item = { id = ARGV[at], key = base .. 'task:' .. ARGV[at], queue = ARGV[at + 1], priority = ARGV[at + 2], slot = ARGV[at + 3],
    run = tonumber(ARGV[at + 5]) or (delay > 0 and now + delay) or nil, expires_in = expires_in,
    expires = expires_in ~= '' and now + tonumber(expires_in), digest = ARGV[at + 7], mode = ARGV[at + 8], window = ARGV[at + 9],
    fields_from = from, fields_to = from + 2 * ARGV[at + 10] - 1 }
  at = item.fields_to + 1
  touched[item.key] = true
  items[i], keys[i] = item, item.key
end
-- As a rule none is: one look for all.
some_known = #keys > 0 and call('EXISTS', unpack(keys)) > 0
local replies = {}
for i, item in ipairs(items) do replies[i] = submit(item) end
turn_wheels()
return commit(cmsgpack.pack(replies))
