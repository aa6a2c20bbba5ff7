--[[ submit: stores new tasks, ready or scheduled, or hands them over to waiting requests that the call offers. If a task holds
the dedupe key, the new one may be dropped, replace it, or wait for its end.

KEYS    task:<id>, queues, expirations
ARGV[5] within_ms   how far from now run_at may be
ARGV[6] retain_ms   how long an expired task without its own retention is kept
ARGV[7] known       '1': a task with one of these ids may be stored
ARGV[8] count       of tasks; then for each: id, queue, priority, slot, max_attempts, options of its fields (see task.lua);
                    options: 0, or 6 and then delay_ms, run_at or '', expires_in_ms or '', digest of its dedupe key or '',
                    mode, window_ms or ''; number of fields, then field and value of each
        offers      see hand_off; none: the end of ARGV
RETURNS {replies, {request, task, lease_until, id, token} of each task handed over}
        replies, one for each task: {'created', state, now, run_at | '', expires_at | ''} | {'created_after', now,
        expires_at | '', id of the task whose end it waits for} | {'already_stored'} | {'existing', id} | {'replaced', id} |
        {'too_far'} | {'past_expiry'}; after these the number of tasks with this dedupe key that had expired, if any
        A repeated call returns the same, without hand-offs whose leases have ended.
MOVES   - -> ready, - -> scheduled; hand-off: ready -> leased; replace and debounce: ready <-> scheduled;
        holder: ready -> expired, scheduled -> expired
COST    O(n log queue)
]]
-- Options and reply of most tasks: shared, so that they cost no table for each.
local NO_OPTIONS, READY_NOW = {}, nil
local within_ms, submit_keyed = tonumber(ARGV[5]), nil
local submitted, some_stored, defer, hand_over = {}, nil, nil, nil
new_counters.submitted = submitted

local function read_options(at)
  local delay_ms, run_at, expires_in_ms, digest, mode, window_ms = tonumber(ARGV[at]), unpack(ARGV, at + 1, at + 5)
  return { run_at = tonumber(run_at) or (delay_ms > 0 and now + delay_ms) or nil,
    expires_at = expires_in_ms ~= '' and now + tonumber(expires_in_ms), expires_in_ms = expires_in_ms,
    digest = digest ~= '' and digest, mode = mode,
    until_ms = (window_ms or '') ~= '' and digits(now + tonumber(window_ms)) or nil }
end

-- Appends the fields that the options of a new task add.
local function set_options(command, task, options)
  if options.run_at then set_field(command, F.run_at, options.run_at) end
  if options.expires_at then
    set_field(command, F.expires_at, options.expires_at)
    set_field(command, F.expires_in_ms, options.expires_in_ms)
    zset_add(base .. 'expirations', options.expires_at, task.id)
  end
  if not options.digest then return end
  set_field(command, F.dedupe_digest, options.digest)
  if options.until_ms then set_field(command, F.dedupe_until, options.until_ms) end
  if task.predecessor then
    set_field(command, F.predecessor, task.predecessor)
    set_field(command, F.start_at, options.start_at or '')
    if task.replaces then set_field(command, F.replaces, '1') end
  else
    write('SET', options.dedupe_key, task.id .. (options.until_ms or ''))
  end
end

local function create(task)
  local options, queue, state = task.options, task[F.queue], 'ready'
  local seq = next_counter('seq')
  task[F.seq] = seq
  if options.run_at then
    state = 'scheduled'
    schedule(task, options.run_at)
  end
  local placement = struct.pack(L.placement.format, L.placement.version, task[F.priority], task[F.slot], task[F.max_attempts], 0, task[F.options],
    now, now, seq) .. queue
  local command = { 'HSET', task.key, F.state, state, F.placement, placement, unpack(ARGV, task.fields_from, task.fields_to) }
  if options ~= NO_OPTIONS then set_options(command, task, options) end
  if state == 'ready' and not (defer and defer(task, command)) then
    enqueue(queue, task[F.priority], task[F.slot], digits(seq), task.id)
  end
  writes[#writes + 1] = command
  -- A queue is listed before it counts a task.
  if record_of(queue)[L.queue.submitted] == 0 then write('ZADD', base .. 'queues', 0, queue) end
  count(queue, 'submitted', 1)
  submitted[queue] = (submitted[queue] or 0) + 1
  count(queue, state, 1)
  emit_event(task.id, queue, '', state)
  return options == NO_OPTIONS and READY_NOW or { 'created', state, now, options.run_at or '', options.expires_at or '' }
end

local function submit(task)
  if task.options_at then task.options = read_options(task.options_at) end
  local options = task.options
  if options.run_at and options.run_at - now > within_ms then return { 'too_far' } end
  if options.run_at and options.expires_at and options.run_at >= options.expires_at then return { 'past_expiry' } end
  if options.run_at and options.run_at <= now then options.run_at = nil end
  if some_stored and call('EXISTS', task.key) == 1 then return { 'already_stored' } end
  if not options.digest then return create(task) end
  submit_keyed = submit_keyed or define_submit_keyed(create)
  return submit_keyed(task)
end

local tasks, keys, queues, at = {}, {}, {}, 9
for i = 1, tonumber(ARGV[8]) do
  local id, queue, options = ARGV[at], ARGV[at + 1], tonumber(ARGV[at + 6])
  local from = at + 8 + options
  local task = { id = id, index = i, key = base .. 'task:' .. id, [F.queue] = queue, [F.priority] = ARGV[at + 2], [F.slot] = ARGV[at + 3],
    [F.max_attempts] = ARGV[at + 4], [F.options] = ARGV[at + 5], options = NO_OPTIONS, options_at = options > 0 and at + 7,
    fields_from = from, fields_to = from + 2 * ARGV[from - 1] - 1 }
  at = task.fields_to + 1
  touched[task.key] = true
  tasks[i], keys[i] = task, task.key
  if raw_records[queue] == nil then raw_records[queue], queues[#queues + 1] = false, queue end
end
local answer = open_call(queues)
if last_reply then return repeat_hand_offs(last_reply) end
if answer then return answer end

READY_NOW = { 'created', 'ready', now, '', '' }
if ARGV[at] then defer, hand_over = define_hand_off(at) end
-- Usually no task is stored: one command asks for all. On a Cluster, a call may continue one that was stopped half-way.
some_stored = (touches_keys or ARGV[7] == '1') and #keys > 0 and call('EXISTS', unpack(keys)) > 0
local replies = {}
for i, task in ipairs(tasks) do replies[i] = submit(task) end
return commit({ replies, hand_over and hand_over() or {} })
