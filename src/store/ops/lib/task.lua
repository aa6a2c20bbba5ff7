-- task: a task's hash. Records of fixed bytes hold the fields that every task has, see layout.rs. The others have their own.
-- The name of a field in a record begins with that of the record: 'p:seq'.
--
-- defines: END_OPTIONS, try_task, load_task, open_with_tasks, read_fields, write_task
-- needs: prelude, transaction, records, open_call
-- keys: task:<id>

-- Added to F.options of a task with fields that its end must read.
local END_OPTIONS = 2
-- Words by the numbers that records hold for them.
local VERBS = { 'complete', 'fail', 'release', 'revoke', 'expire' }
local STATES = { 'ready', 'scheduled', 'completed', 'dead', 'cancelled', 'expired' }
local NO_TOKEN = string.rep('\0', 16)

-- Returns a task by the names of its fields, with its id and key; nil if there is no such task, and nil with the reason if it
-- cannot be read. `names` are fields outside its records. A call may name a task once: writes are staged, so a second read
-- would not see the first change.
local function try_task(id, names)
  local key = base .. 'task:' .. id
  if touched[key] then error('TWICE one task in a call') end
  touched[key] = true
  local values = redis.pcall('HMGET', key, F.state, F.placement, F.lease, F.ending, unpack(names))
  if values.err then return nil, values.err end
  local state, placement, lease, ending = unpack(values, 1, 4)
  if not state then return nil end
  local byte, unpack_record = string.byte, struct.unpack
  if not placement or #placement <= L.placement.bytes or byte(placement) ~= L.placement.version
    or state == 'leased' and not lease or lease and (#lease < L.lease.bytes or byte(lease) ~= L.lease.version)
    or ending and (#ending ~= L.ending.bytes or byte(ending) ~= L.ending.version) then
    return nil, 'UNREADABLE record of a task'
  end
  local task, at, _ = { id = id, key = key, [F.state] = state, [F.lease_token] = false, [F.acquired] = 0 }, nil, nil
  for i = 1, #names do task[names[i]] = values[i + 4] end
  _, task[F.priority], task[F.slot], task[F.max_attempts], task[F.attempts], task[F.options], task[F.created_at], task[F.ready_at],
    task[F.seq], at = unpack_record(L.placement.format, placement)
  task[F.queue] = string.sub(placement, at)
  if lease then
    _, task[F.lease_token], task[F.lease_until], task[F.leased_at], task[F.lease_set_at], task[F.lease_ms], task[F.acquired],
      task[F.has_claim], at = unpack_record(L.lease.format, lease)
    task[F.worker] = string.sub(lease, at)
  end
  if ending then
    local verb
    _, task[F.ended_lease_token], verb, state, task[F.ended_run_at], task[F.finished_at] = unpack_record(L.ending.format, ending)
    task[F.ended_by], task[F.ended_state] = VERBS[verb], STATES[state]
  end
  return task
end

-- Returns the same. A task that cannot be read fails the call.
local function load_task(id, names)
  local task, reason = try_task(id, names)
  if reason then error(reason) end
  return task
end

-- Loads `count` tasks by the ids at ARGV[from], ARGV[from + step], …, and opens the call with their queues. Returns the tasks,
-- false for each that does not exist, and what open_call returns.
local function open_with_tasks(count, from, step, names)
  local tasks, queues = {}, {}
  for i = 1, count do
    local task = load_task(ARGV[from + (i - 1) * step], names) or false
    local queue = task and task[F.queue]
    if queue and raw_records[queue] == nil then
      raw_records[queue], queues[#queues + 1] = false, queue
    end
    tasks[i] = task
  end
  return tasks, open_call(queues)
end

-- Reads further fields of a task.
local function read_fields(task, names)
  for i, value in ipairs(call('HMGET', task.key, unpack(names))) do task[names[i]] = value end
end

local function number_of(word, words)
  for number, other in ipairs(words) do
    if other == word then return number end
  end
  return 0
end

-- Changes the task's fields, and stages the write: `command` is an HSET of fields by name.
local function write_task(task, command)
  local staged, changed = { 'HSET', task.key }, {}
  for i = 3, #command, 2 do
    local name, value = command[i], command[i + 1]
    if string.sub(name, 2, 2) == ':' then
      task[name], changed[string.sub(name, 1, 1)] = value, true
    else
      set_field(staged, name, value)
    end
  end
  if changed[F.placement] then
    set_field(staged, F.placement, struct.pack(L.placement.format, L.placement.version, task[F.priority], task[F.slot], task[F.max_attempts],
      task[F.attempts], task[F.options], task[F.created_at], task[F.ready_at], task[F.seq]) .. task[F.queue])
  end
  if changed[F.lease] then
    set_field(staged, F.lease, struct.pack(L.lease.format, L.lease.version, task[F.lease_token], task[F.lease_until], task[F.leased_at],
      task[F.lease_set_at] or 0, task[F.lease_ms], task[F.acquired], task[F.has_claim] or 0) .. task[F.worker])
  end
  if changed[F.ending] then
    set_field(staged, F.ending, struct.pack(L.ending.format, L.ending.version, task[F.ended_lease_token] or NO_TOKEN,
      number_of(task[F.ended_by], VERBS), number_of(task[F.ended_state], STATES), task[F.ended_run_at] or 0, task[F.finished_at] or 0))
  end
  writes[#writes + 1] = staged
end
