-- submit_keyed: submits a task with options. With a dedupe key, the state of the task that holds the key decides.
--
-- Reads ARGV[6]: retain_ms of expired tasks.
--
-- defines: the end of define_submit_with_options(create), which returns a function that submits a task and returns the reply,
--   and one that appends the fields of a new task's options to its HSET
-- needs: clock, transaction, events, wheel, waiting, submit_options, holder
-- keys: scheduled:<queue>, expirations

-- The time in `scheduled` of a task that waits for another's end: the end of the year 9999.
local NEVER = 253402300799999
-- Modes in which the task that holds the key gets no further attempt.
local REPLACES = { replace = true, debounce = true }

-- Creates a task that waits for the end of `holder`, and then for its own time.
local function create_after(holder, task)
  local options = task.options
  task.predecessor, options.start_at, options.run_at = holder.id, options.run_at, NEVER
  task.replaces = REPLACES[options.mode]
  create(task)
  write('HSET', holder.key, F.successor, task.id)
  return { 'created_after', now, options.expires_at or '', holder.id }
end

-- Gives the waiting task `old` the content of `new`, with no attempts used. Its time starts again with debounce, and if it
-- waits for the retry of its old content; a successor's with each mode but replace.
local function replace(old, new)
  local options, queue, was = new.options, old[F.queue], old[F.state]
  local _, priority, _, max_attempts, _, fields_read = struct.unpack(L.placement.before_created_at, new.placement)
  local is_successor, due = (old[F.predecessor] or '') ~= '', nil
  local waits_for_retry = was == 'scheduled' and old[F.ended_state] == 'scheduled' and old[F.ended_run_at] == tonumber(old[F.run_at])
  local restarts = options.mode == 'debounce' or waits_for_retry
  if is_successor then
    due = options.mode == 'replace' and tonumber(old[F.start_at])
  else
    due = was == 'scheduled' and not restarts and tonumber(old[F.run_at])
  end
  -- It would expire before the time that it keeps.
  if due and options.expires_at and due >= options.expires_at then return { 'past_expiry' } end
  local command = { 'HSET', old.key, F.priority, priority, F.max_attempts, max_attempts, F.options,
    bit.bor(old[F.options], fields_read), F.expires_at, options.expires_at or '', F.expires_in_ms,
    options.expires_at and options.expires_in_ms or '', F.dedupe_until, options.until_ms or '', F.attempts, 0,
    F.uncounted, old[F.acquired], F.progress, '' }
  for i = new.fields_from, new.fields_to do command[#command + 1] = ARGV[i] end
  if options.expires_at then
    zset_add(base .. 'expirations', options.expires_at, old.id)
  elseif old[F.expires_at] and old[F.expires_at] ~= '' then
    zset_remove(base .. 'expirations', old.id)
  end
  if is_successor then
    if options.mode ~= 'replace' then set_field(command, F.start_at, options.run_at or '') end
    if REPLACES[options.mode] then set_field(command, F.replaces, '1') end
    write_task(old, command)
    return { 'replaced', old.id }
  end
  write('SET', options.dedupe_key, old.id .. (options.until_ms or ''))
  local state, seq = was, old[F.seq]
  if restarts then
    state = options.run_at and 'scheduled' or 'ready'
    set_field(command, F.run_at, options.run_at or '')
  end
  local old_seq, is_moved = seq, was == 'ready' and (state ~= 'ready' or old[F.priority] ~= priority)
  if is_moved then dequeue(old) end
  old[F.priority] = priority
  if was == 'scheduled' and state == 'ready' then zset_remove(base .. 'scheduled:' .. queue, old.id) end
  if restarts and state == 'scheduled' then
    schedule(old, options.run_at)
  elseif restarts then
    -- Ready from now on, behind the tasks that are ready.
    seq = next_seq(old)
    set_field(command, F.seq, seq)
    set_field(command, F.ready_at, now)
  elseif is_moved and record_of(queue).has_slot_pieces then
    -- A list with pieces has its own positions.
    seq = next_seq(old)
    set_field(command, F.seq, seq)
  end
  if state == 'ready' and was == 'ready' and restarts and not is_moved then
    requeue(old, old_seq, seq)
  elseif state == 'ready' and (is_moved or restarts) then
    enqueue(old, seq)
  end
  if state ~= was then
    set_field(command, F.state, state)
    transition(old, was, state)
  end
  write_task(old, command)
  return { 'replaced', old.id }
end

local function submit_keyed(task)
  local options, holder, successor = task.options, nil, nil
  options.dedupe_key, holder, successor = find_holder(task[F.queue], options.digest, ARGV[6])
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
  local options, expired_before = read_options(task.options_at), expired_holders
  task.options = options
  if options.run_at and options.run_at - now > within_ms then return { 'too_far' } end
  if options.run_at and options.expires_at and options.run_at >= options.expires_at then return { 'past_expiry' } end
  if options.run_at and options.run_at <= now then options.run_at = nil end
  if not options.digest then return create(task) end
  local reply = submit_keyed(task)
  -- The number of tasks that had expired follows the reply.
  if expired_holders > expired_before then reply[#reply + 1] = expired_holders - expired_before end
  return reply
end

return submit, set_options
