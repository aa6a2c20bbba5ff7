-- task: a task's hash. Records of fixed bytes hold the fields that every task has, see layout.rs. The others have their own.
-- The name of a field in a record begins with that of the record: 'p:seq'. The placement and the ending are unpacked when one
-- of their fields is first read or written.
--
-- defines: number_of, unpack_placement, unpack_ending, try_task, load_task, open_with_tasks
-- needs: prelude, transaction, records, open_call
-- keys: task:<id>
local loaded_keys = {}

-- Returns the number that a record has for a word; 0 if there is none.
local function number_of(word, words)
  for number, other in ipairs(words) do
    if other == word then return number end
  end
  return 0
end

-- Unpacks the placement of a task, if it is still packed.
local function unpack_placement(task)
  local packed, _ = rawget(task, 'packed_placement'), nil
  if not packed then return end
  task.packed_placement = nil
  _, task[F.priority], task[F.slot], task[F.max_attempts], task[F.attempts], _, task[F.created_at], task[F.ready_at], task[F.seq] =
    struct.unpack(L.placement.format, packed)
end

local function unpack_ending(task)
  local packed, verb, state, _ = rawget(task, 'packed_ending'), nil, nil, nil
  if not packed then return end
  task.packed_ending = nil
  _, verb, state, task[F.ended_run_at], task[F.finished_at], task[F.end_seq] = struct.unpack(L.ending.format, packed)
  task[F.ended_lease_token] = #packed > L.ending.bytes and string.sub(packed, L.ending.bytes + 1) or task[F.lease_token]
  local verbs, states = L.ending.words_ended_by, L.ending.words_ended_state
  task[F.ended_by], task[F.ended_state] = verbs[verb], states[state]
end

-- By the bytes of a name: 58 is ':', 112 begins the names of placement, and 108 those of lease.
local FIELDS_OF_TASK = { __index = function(task, name)
  local record, separator = string.byte(name, 1, 2)
  if separator ~= 58 then return nil end
  if record == 112 then unpack_placement(task) else unpack_ending(task) end
  return rawget(task, name)
end }

-- Returns a task by the names of its fields, with its id and key; nil if there is no such task, and nil with the reason if it
-- cannot be read. `names` are fields outside its records. A call may name a task once: writes are staged, so a second read
-- would not see the first change.
local function try_task(id, names)
  local key, byte = base .. 'task:' .. id, string.byte
  if loaded_keys[key] then error('TWICE one task in a call') end
  loaded_keys[key] = true
  local values = redis.pcall('HMGET', key, F.state, F.placement, F.lease, F.ending, unpack(names))
  if values.err then return nil, values.err end
  local state, placement, lease, ending = unpack(values, 1, 4)
  if not state then return nil end
  -- The digest of its key, if it has one, and the name of its queue.
  local options = placement and byte(placement, L.placement.byte_options) or 0
  local name_at = L.placement.bytes + (options % 8 < 4 and 9 or 1)
  if not placement or #placement < name_at or byte(placement) ~= L.placement.version
    or state == 'leased' and not lease or lease and (#lease < L.lease.bytes or byte(lease) ~= L.lease.version)
    or ending and (#ending < L.ending.bytes or byte(ending) ~= L.ending.version) then
    return nil, 'UNREADABLE record of a task'
  end
  local token, lease_until, leased_at, set_at, lease_ms, acquired, has_claim, worker, at, _
  if lease then
    _, token, lease_until, leased_at, set_at, lease_ms, acquired, has_claim, at = struct.unpack(L.lease.format, lease)
    worker = string.sub(lease, at)
  end
  local task = setmetatable({ id = id, key = key, packed_placement = placement, packed_ending = ending, [F.state] = state,
    [F.queue] = string.sub(placement, name_at), [F.key_digest] = string.sub(placement, L.placement.bytes + 1, name_at - 1),
    [F.options] = options,
    [F.lease_token] = token or false, [F.lease_until] = lease_until, [F.leased_at] = leased_at, [F.lease_set_at] = set_at,
    [F.lease_ms] = lease_ms, [F.acquired] = acquired or 0, [F.has_claim] = has_claim, [F.worker] = worker }, FIELDS_OF_TASK)
  for i = 1, #names do task[names[i]] = values[i + 4] end
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
