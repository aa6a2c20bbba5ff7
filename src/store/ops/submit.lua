--[[ submit: stores new tasks, ready or scheduled. If a task holds the dedupe key, the new one may be dropped, replace it, or
wait for its end.

KEYS    task:<id>, queues, count:<queue>, scheduled:<queue>, expirations
ARGV[5] within_ms   how far from now run_at may be
ARGV[6] retain_ms   how long an expired task without its own retention is kept
ARGV[7] count       of tasks; then for each: id, queue, priority, slot; options: 0, or 6 and then delay_ms, run_at or '',
                    expires_in_ms or '', digest of its dedupe key or '', mode, window_ms or ''; number of fields, then field
                    and value of each
RETURNS {'created', state, now, run_at | '', expires_at | ''} | {'created_after', now, expires_at | '', id of the task whose end
        it waits for} | {'already_stored'} | {'existing', id} | {'replaced', id} | {'too_far'} | {'past_expiry'}, for each
        task; after these the number of tasks with this dedupe key that had expired, if any
MOVES   - -> ready, - -> scheduled; replace and debounce: ready <-> scheduled; holder: ready -> expired,
        scheduled -> expired
COST    O(n log queue)
]]
if last_reply then return last_reply end

-- Options and reply of most tasks: shared, so that they cost no table for each.
local NO_OPTIONS, READY_NOW = {}, { 'created', 'ready', now, '', '' }
-- The time in `scheduled` of a task that waits for another's end: the end of the year 9999.
local NEVER = 253402300799999
-- Modes in which the task that holds the key gets no further attempt.
local REPLACES = { replace = true, debounce = true }
local within_ms, retain_ms = tonumber(ARGV[5]), ARGV[6]
local submitted, is_listed, some_stored = {}, {}, nil
new_counters.submitted = submitted

local function read_options(at)
  local delay_ms, run_at, expires_in_ms, digest, mode, window_ms = tonumber(ARGV[at]), unpack(ARGV, at + 1, at + 5)
  return { run_at = tonumber(run_at) or (delay_ms > 0 and now + delay_ms) or nil,
    expires_at = expires_in_ms ~= '' and now + tonumber(expires_in_ms), expires_in_ms = expires_in_ms,
    digest = digest ~= '' and digest, mode = mode,
    until_ms = (window_ms or '') ~= '' and digits(now + tonumber(window_ms)) or nil }
end

-- Lists a queue before it counts a task.
local function list_queue(queue)
  if is_listed[queue] then return end
  is_listed[queue] = true
  local submitted_before = call('HGET', base .. 'count:' .. queue, 'submitted')
  if (submitted_before or '0') == '0' then write('ZADD', base .. 'queues', 0, queue) end
end

-- Stages the record of the dedupe key.
local function hold_key(id, options)
  write('SET', options.dedupe_key, id .. (options.until_ms or ''))
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
    if REPLACES[options.mode] then set_field(command, F.replaces, '1') end
  else
    hold_key(task.id, options)
  end
end

local function create(task)
  local options, queue, state = task.options, task[F.queue], 'ready'
  task[F.seq] = digits(next_counter('seq'))
  if options.run_at then
    state = 'scheduled'
    schedule(task, options.run_at)
  else
    enqueue(queue, task[F.priority], task[F.slot], task[F.seq], task.id)
  end
  local command = { 'HSET', task.key, F.state, state, F.queue, queue, F.slot, task[F.slot], F.priority, task[F.priority],
    F.seq, task[F.seq], F.created_at, now_digits, unpack(ARGV, task.fields_from, task.fields_to) }
  if options ~= NO_OPTIONS then set_options(command, task, options) end
  writes[#writes + 1] = command
  count(queue, 'submitted', 1)
  submitted[queue] = (submitted[queue] or 0) + 1
  count(queue, state, 1)
  emit_event(task.id, queue, '', state)
  list_queue(queue)
  return options == NO_OPTIONS and READY_NOW or { 'created', state, now, options.run_at or '', options.expires_at or '' }
end

-- Creates a task that waits for the end of `holder`, and then for its own time.
local function create_after(holder, task)
  local options = task.options
  task.predecessor, options.start_at, options.run_at = holder.id, options.run_at, NEVER
  create(task)
  write('HSET', holder.key, F.successor, task.id)
  return { 'created_after', now, options.expires_at or '', holder.id }
end

-- Gives the waiting task `old` the content of `new`, with no attempts used. Its time starts again with debounce, and if it
-- waits for the retry of its old content; a successor's with each mode but replace.
local function replace(old, new)
  local options, queue, slot, was, priority = new.options, old[F.queue], old[F.slot], old[F.state], new[F.priority]
  local is_successor, due = (old[F.predecessor] or '') ~= '', nil
  local waits_until = string.match(old[F.ended_lease_reply] or '', '^%a+ scheduled (%d+)$')
  local restarts = options.mode == 'debounce' or (was == 'scheduled' and tonumber(waits_until) == tonumber(old[F.run_at]))
  if is_successor then
    due = options.mode == 'replace' and tonumber(old[F.start_at])
  else
    due = was == 'scheduled' and not restarts and tonumber(old[F.run_at])
  end
  -- It would expire before the time that it keeps.
  if due and options.expires_at and due >= options.expires_at then return { 'past_expiry' } end
  local command = { 'HSET', old.key, F.priority, priority, F.expires_at, options.expires_at or '', F.expires_in_ms,
    options.expires_at and options.expires_in_ms or '', F.dedupe_until, options.until_ms or '', F.attempts, 0,
    F.uncounted, old[F.acquired] or 0, F.progress, '' }
  for i = new.fields_from, new.fields_to do command[#command + 1] = ARGV[i] end
  if options.expires_at then
    zset_add(base .. 'expirations', options.expires_at, old.id)
  elseif old[F.expires_at] and old[F.expires_at] ~= '' then
    zset_remove(base .. 'expirations', old.id)
  end
  if is_successor then
    if options.mode ~= 'replace' then set_field(command, F.start_at, options.run_at or '') end
    if REPLACES[options.mode] then set_field(command, F.replaces, '1') end
    writes[#writes + 1] = command
    return { 'replaced', old.id }
  end
  hold_key(old.id, options)
  local state, seq = was, old[F.seq]
  if restarts then
    state = options.run_at and 'scheduled' or 'ready'
    set_field(command, F.run_at, options.run_at or '')
  end
  local is_moved = was == 'ready' and (state ~= 'ready' or old[F.priority] ~= priority)
  if is_moved then dequeue(queue, old[F.priority], slot, old.id) end
  if was == 'scheduled' and state == 'ready' then zset_remove(base .. 'scheduled:' .. queue, old.id) end
  if restarts and state == 'scheduled' then
    schedule(old, options.run_at)
  elseif restarts then
    -- Ready from now on, behind the tasks that are ready.
    seq = digits(next_counter('seq'))
    set_field(command, F.seq, seq)
    set_field(command, F.ready_at, now_digits)
  end
  if state == 'ready' and (is_moved or restarts) then enqueue(queue, priority, slot, seq, old.id) end
  if state ~= was then
    set_field(command, F.state, state)
    transition(old, was, state)
  end
  writes[#writes + 1] = command
  return { 'replaced', old.id }
end

-- Submits a task with a dedupe key, by the state of the task that holds the key.
local function submit_keyed(task)
  local options, holder, successor = task.options, nil, nil
  options.dedupe_key, holder, successor = find_holder(task[F.queue], options.digest, retain_ms)
  if not holder then return create(task) end
  local mode, is_leased = options.mode, holder[F.state] == 'leased'
  if mode == 'keep' then
    if successor then return { 'existing', successor.id } end
    if is_leased and ends_with_lease(holder) then return create_after(holder, task) end
    return { 'existing', holder.id }
  end
  if successor then return replace(successor, task) end
  if is_leased or mode == 'after' then return create_after(holder, task) end
  return replace(holder, task)
end

local function submit(task)
  local options = task.options
  if options.run_at and options.run_at - now > within_ms then return { 'too_far' } end
  if options.run_at and options.expires_at and options.run_at >= options.expires_at then return { 'past_expiry' } end
  if options.run_at and options.run_at <= now then options.run_at = nil end
  if some_stored and call('EXISTS', task.key) == 1 then return { 'already_stored' } end
  if not options.digest then return create(task) end
  local expired_before = expired_holders
  local reply = submit_keyed(task)
  if expired_holders > expired_before then reply[#reply + 1] = expired_holders - expired_before end
  return reply
end

local tasks, keys, at = {}, {}, 8
for i = 1, tonumber(ARGV[7]) do
  local id, options = ARGV[at], tonumber(ARGV[at + 4])
  local from = at + 6 + options
  local task = { id = id, key = base .. 'task:' .. id, [F.queue] = ARGV[at + 1], [F.priority] = ARGV[at + 2], [F.slot] = ARGV[at + 3],
    [F.seq] = false, options = options == 0 and NO_OPTIONS or read_options(at + 5),
    fields_from = from, fields_to = from + 2 * ARGV[from - 1] - 1 }
  at = task.fields_to + 1
  touched[task.key] = true
  tasks[i], keys[i] = task, task.key
end
-- Usually no task is stored: one command asks for all.
some_stored = #keys > 0 and call('EXISTS', unpack(keys)) > 0
local replies = {}
for i, task in ipairs(tasks) do replies[i] = submit(task) end
return commit(replies)
