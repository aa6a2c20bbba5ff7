--[[ submit: store new tasks and put them where they wait.

KEYS[1] calls       hash   last call of each pump; the declared key that carries the shard's tag
ARGV[1] base        derives base .. 'task:' .. id (hash), base .. 'slot:' .. queue .. ':' .. priority .. ':' .. slot (zset),
                    base .. 'wheel:' .. queue (zset), base .. 'ready' (zset), base .. 'scheduled:' .. queue (zset),
                    base .. 'due' (zset), base .. 'deadline' (zset), base .. 'count:' .. queue (hash), base .. 'count' (hash),
                    base .. 'queues' (zset), base .. 'queue:' .. queue (hash), base .. 'dedupe:' .. queue .. ':' .. digest (string),
                    base .. 'seq' (hash), base .. 'stats:' .. bucket (hash), base .. 'listen' (string)
                                                                    same tag as KEYS[1]
ARGV[2] pump        who calls
ARGV[3] number      number of this call: repeated, it answers as before
ARGV[4] offset_ms   '' in production; tests move time with it
ARGV[5] within_ms   how far run_at may lie from now
ARGV[6] count       of tasks; then for each: id, queue, priority, slot; options: 0, or 6 and then delay_ms, run_at or '',
                    expires_in_ms or '', digest of its dedupe key or '', mode, window_ms or ''; number of fields, then field,
                    value of each
RETURNS {'created', state, now, run_at | '', expires_at | ''} | {'known'} | {'kept', id} | {'replaced', id} | {'too_far'}, each
MOVES   - -> ready, - -> scheduled; replace and debounce: ready <-> scheduled
COST    O(n log queue)
]]
if last then return last end

local LIVES = { ready = true, scheduled = true, leased = true }
local within = tonumber(ARGV[5])
local listed, submitted, some_known = {}, {}, nil

-- What most tasks have of options, and what they are answered: one for all.
local PLAIN, READY_NOW = {}, { 'created', 'ready', now, '', '' }

local function options_at(at)
  local delay, run, expires_in, digest, mode, window = tonumber(ARGV[at]), unpack(ARGV, at + 1, at + 5)
  return { run = tonumber(run) or (delay > 0 and now + delay) or nil, expires = expires_in ~= '' and now + tonumber(expires_in),
    expires_in = expires_in, digest = digest ~= '' and digest, mode = mode, window = window }
end

-- A queue that counts a task is listed: the list is written first.
local function list_queue(queue)
  if listed[queue] then return end
  listed[queue] = true
  local submitted = call('HGET', base .. 'count:' .. queue, 'submitted')
  if (submitted or '0') == '0' then write('ZADD', base .. 'queues', 0, queue) end
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

-- Adds to the fields of a new task what its options say.
local function describe(task, options, fields)
  local function field(name, value)
    fields[#fields + 1] = name
    fields[#fields + 1] = value
  end
  if options.run then field('w', options.run) end
  if options.expires then
    field('x', options.expires)
    field('X', options.expires_in)
    add(base .. 'deadline', options.expires, task.id)
  end
  if options.digest then
    field('D', options.digest)
    if options.window ~= '' then
      local until_ms = digits(now + tonumber(options.window))
      field('Y', until_ms)
      write('SET', options.holder_key, task.id .. until_ms, 'PX', options.window)
    else
      write('SET', options.holder_key, task.id)
    end
  end
end

local function create(task)
  local options = task.options
  task.n = digits(next_of('seq'))
  local state = place(task, options.run)
  local fields = { 'HSET', task.key, 'S', state, 'q', task.q, 's', task.s, 'p', task.p, 'n', task.n, 'c', now_digits,
    unpack(ARGV, task.from, task.to) }
  if options ~= PLAIN then describe(task, options, fields) end
  writes[#writes + 1] = fields
  count(task.q, 'submitted', 1)
  submitted[task.q] = (submitted[task.q] or 0) + 1
  count(task.q, state, 1)
  tell(task.id, task.q, '', state)
  list_queue(task.q)
  return options == PLAIN and READY_NOW or { 'created', state, now, options.run or '', options.expires or '' }
end

-- A waiting task takes over the content of `new`; debounce also its delay.
local function replace(task, new)
  local options = new.options
  local fields = { 'HSET', task.key, 'p', new.p, 'x', options.expires or '', 'X', options.expires and options.expires_in or '' }
  for i = new.from, new.to do fields[#fields + 1] = ARGV[i] end
  if options.expires then
    add(base .. 'deadline', options.expires, task.id)
  elseif task.x and task.x ~= '' then
    remove(base .. 'deadline', task.id)
  end
  local state, run = task.S, nil
  if options.mode == 'debounce' then
    state, run = options.run and 'scheduled' or 'ready', options.run
    fields[#fields + 1] = 'w'
    fields[#fields + 1] = run or ''
  end
  local requeued = task.S == 'ready' and (state ~= 'ready' or task.p ~= new.p)
  if requeued then leave(task.q, task.p, task.s, task.id) end
  if task.S == 'scheduled' and state == 'ready' then remove(base .. 'scheduled:' .. task.q, task.id) end
  task.p = new.p
  if run then
    postpone(task, run)
  elseif state == 'ready' and (requeued or task.S ~= 'ready') then
    enter(task.q, task.p, task.s, task.n, task.id)
    if task.S ~= 'ready' then
      fields[#fields + 1] = 'r'
      fields[#fields + 1] = now
    end
  end
  if state ~= task.S then
    fields[#fields + 1] = 'S'
    fields[#fields + 1] = state
    move(task, task.S, state)
  end
  writes[#writes + 1] = fields
  return { 'replaced', task.id }
end

local function submit(task)
  local options = task.options
  if options.run and options.run - now > within then return { 'too_far' } end
  if options.run and options.run <= now then options.run = nil end
  if some_known and call('EXISTS', task.key) == 1 then return { 'known' } end
  if not options.digest then return create(task) end
  options.holder_key = base .. 'dedupe:' .. task.q .. ':' .. options.digest
  touched[options.holder_key] = true
  local record = call('GET', options.holder_key)
  if not record then return create(task) end
  local until_ms = tonumber(string.sub(record, 17))
  local holder = load(string.sub(record, 1, 16), { 'S', 'q', 's', 'p', 'n', 'x' })
  if not holder or (until_ms and until_ms <= now) then return create(task) end
  -- One that has ended holds nothing: its record should have gone with its end.
  if not LIVES[holder.S] then return create(task) end
  if options.mode == 'keep' then return { 'kept', holder.id } end
  if holder.S == 'leased' then
    local created = create(task)
    write('HSET', holder.key, 'Y', digits(now))
    return created
  end
  return replace(holder, task)
end

local tasks, keys, at = {}, {}, 7
for i = 1, tonumber(ARGV[6]) do
  local id, options = ARGV[at], tonumber(ARGV[at + 4])
  local from = at + 6 + options
  local task = { id = id, key = base .. 'task:' .. id, q = ARGV[at + 1], p = ARGV[at + 2], s = ARGV[at + 3], n = false,
    options = options == 0 and PLAIN or options_at(at + 5), from = from, to = from + 2 * ARGV[from - 1] - 1 }
  at = task.to + 1
  touched[task.key] = true
  tasks[i], keys[i] = task, task.key
end
-- As a rule none is: one look for all.
some_known = #keys > 0 and call('EXISTS', unpack(keys)) > 0
local replies = {}
for i, task in ipairs(tasks) do replies[i] = submit(task) end
measured('submitted', submitted)
turn_wheels()
return commit(cmsgpack.pack(replies))
