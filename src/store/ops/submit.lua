--[[ submit: stores new tasks, ready or scheduled, or hands them over to waiting requests that the call offers. If a task holds
the dedupe key, the new one may be dropped, replace it, or wait for its end.

KEYS    task:<id>, queues
ARGV[5] within_ms   how far from now run_at may be
ARGV[6] retain_ms   how long an expired task without its own retention is kept
ARGV[7] known       '1': a task with one of these ids may be stored
ARGV[8] count       of tasks; then for each: id, queue, priority, slot; its placement without times and seq, and behind that
                    the digest of its key, if it has one; options: 0, or
                    6 and then delay_ms, run_at or '', expires_in_ms or '', digest of its dedupe key or '', mode,
                    window_ms or ''; number of fields, then field and value of each
        offers      see hand_off; none: the end of ARGV
RETURNS {replies, {request, task, lease_until, id, token} of each task handed over}
        replies, one for each task: {'ready', now} | {'created', state, now, run_at | '', expires_at | ''} |
        {'created_after', now, expires_at | '', id of the task whose end it waits for} | {'already_stored'} |
        {'existing', id} | {'replaced', id} | {'too_far'} | {'past_expiry'}; after these the number of tasks with this dedupe
        key that had expired, if any
        A repeated call returns the same, without hand-offs whose leases have ended.
MOVES   - -> ready, - -> scheduled; hand-off: ready -> leased; replace and debounce: ready <-> scheduled;
        holder: ready -> expired, scheduled -> expired
COST    O(n log queue)
]]
-- The reply for a task without options, which is ready now.
local READY_NOW
local submitted, submit_with_options, set_options, defer, hand_over = {}, nil, nil, nil, nil
new_counters[L.call.counter.submitted] = submitted

local function create(task)
  local options, queue, state = task.options, task[F.queue], 'ready'
  local record = record_of(queue)
  local seq, key_digest = next_seq(task), task[F.key_digest]
  task[F.seq] = seq
  local start = key_digest == '' and task.placement or string.sub(task.placement, 1, L.placement.byte_created_at - 1)
  local placement = start .. struct.pack(L.placement.from_created_at, now, now, seq) .. key_digest .. queue
  local command = { 'HSET', task.key, F.state, state, F.placement, placement, unpack(ARGV, task.fields_from, task.fields_to) }
  if options then
    state = set_options(command, task, options)
    command[4] = state
  end
  if state == 'ready' and not (defer and defer(task, command)) then enqueue(task, seq) end
  writes[#writes + 1] = command
  -- A queue is listed before it counts a task.
  if record[L.queue.submitted] == 0 then write('ZADD', base .. 'queues', 0, queue) end
  count(queue, L.queue.submitted, 1)
  count(queue, state == 'ready' and L.queue.ready or L.queue.scheduled, 1)
  submitted[queue] = (submitted[queue] or 0) + 1
  emit_event(task.id, queue, '', state)
  return options and { 'created', state, now, options.run_at or '', options.expires_at or '' } or READY_NOW
end

local tasks, keys, queues, at = {}, {}, {}, 9
for i = 1, tonumber(ARGV[8]) do
  local id, queue, options_at = ARGV[at], ARGV[at + 1], nil
  local key, from = base .. 'task:' .. id, at + 7
  if ARGV[at + 5] ~= '0' then options_at, from = at + 6, from + ARGV[at + 5] end
  local to = from + 2 * ARGV[from - 1] - 1
  local placement = ARGV[at + 4]
  tasks[i], keys[i] = { id = id, index = i, key = key, [F.queue] = queue, [F.priority] = ARGV[at + 2], [F.slot] = ARGV[at + 3],
    [F.key_digest] = string.sub(placement, L.placement.byte_created_at), placement = placement, options_at = options_at,
    fields_from = from, fields_to = to }, key
  at = to + 1
  if raw_records[queue] == nil then raw_records[queue], queues[#queues + 1] = false, queue end
end
local answer = open_call(queues)
if last_reply then
  local _, _, repeat_hand_offs = define_hand_off(at)
  return repeat_hand_offs(last_reply)
end
if answer then return answer end

READY_NOW = { 'ready', now }
if ARGV[at] then defer, hand_over = define_hand_off(at) end
-- Usually no task is stored: one command asks for all. On a Cluster, a call may continue one that was stopped half-way.
local some_stored = (touches_keys or ARGV[7] == '1') and #keys > 0 and call('EXISTS', unpack(keys)) > 0
local replies = {}
for i, task in ipairs(tasks) do
  if some_stored and call('EXISTS', task.key) == 1 then
    replies[i] = { 'already_stored' }
  elseif task.options_at then
    if not submit_with_options then submit_with_options, set_options = define_submit_with_options(create) end
    replies[i] = submit_with_options(task)
  else
    replies[i] = create(task)
  end
end
return commit({ replies, hand_over and hand_over() or {} })
