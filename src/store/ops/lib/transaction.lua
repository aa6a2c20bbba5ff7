-- transaction: the transaction. A script reads, stages its writes, and ends with `return commit(reply)`.
--
-- A script that is stopped half-way keeps its earlier writes. Therefore `commit` writes in a fixed order: values and
-- fields, added zset members, the records in `callers`, removed zset members, and last the writes that may delete a key.
-- No key is touched after a write that may have emptied it. On a Cluster every key is touched before the first write.
-- Wake-ups follow the writes. Nothing may fail then, so a message that Redis denies is dropped: its receivers poll.
-- A script pays for each function and table it defines, so fragments define few, and `commit` is one long function.
--
-- defines: stage_freed_keys, stage_wheels, stage_turns, stage_ended_lists, stage_counters, stage_due, stage_records,
--   stage_events; set_field,
--   zset_add, zset_remove, write, write_last, notify, commit; writes, removals
-- needs: prelude, clock; records, which sets stage_records
-- keys: callers

-- Functions that stage writes at the end of a call, in this order; nil: nothing.
local stage_freed_keys, stage_wheels, stage_turns, stage_ended_lists, stage_counters, stage_due, stage_records, stage_events
local zset_adds, removals, writes, last_writes, messages = {}, {}, {}, nil, nil

-- Appends a field to an HSET that is being built.
local function set_field(command, name, value)
  local n = #command
  command[n + 1], command[n + 2] = name, value
end

local function zset_add(key, score, member)
  local command = zset_adds[key]
  if not command then
    zset_adds[key] = { 'ZADD', key, score, member }
    return
  end
  local n = #command
  command[n + 1], command[n + 2] = score, member
end

local function zset_remove(key, member)
  local command = removals[key]
  if command then command[#command + 1] = member else removals[key] = { 'ZREM', key, member } end
end

-- Stages a write that cannot empty its key.
local function write(...)
  writes[#writes + 1] = { ... }
end

-- Stages a write that deletes its key, or may empty it.
local function write_last(...)
  last_writes = last_writes or {}
  last_writes[#last_writes + 1] = { ... }
end

-- Stages a message on a channel, `wakeups` if nil.
local function notify(text, channel)
  messages = messages or {}
  local n = #messages
  messages[n + 1], messages[n + 2] = channel or 'wakeups', text
end

-- Makes all staged writes, and returns the packed reply. A repeated call gets the same reply, or, where that would be out
-- of date, finds in `last_reply` the text `remembered` instead.
local function commit(reply, remembered)
  if stage_freed_keys then stage_freed_keys() end
  if stage_wheels then stage_wheels() end
  if stage_turns then stage_turns() end
  if stage_ended_lists then stage_ended_lists() end
  if stage_counters then stage_counters() end
  local packed = cmsgpack.pack(reply)
  callers_command[4] = struct.pack(L.call.format, L.call.version, sequence, now, counted_at, #counters) .. counters
    .. (remembered or packed)
  if stage_due then stage_due() end
  stage_records(callers_command)
  for _, command in pairs(zset_adds) do writes[#writes + 1] = command end
  writes[#writes + 1] = callers_command
  for _, command in pairs(removals) do writes[#writes + 1] = command end
  if last_writes then
    for i = 1, #last_writes do writes[#writes + 1] = last_writes[i] end
  end
  if touches_keys then
    -- `callers` has been read.
    local keys, is_listed = {}, { [callers] = true }
    for _, command in ipairs(writes) do
      local key = command[2]
      if not is_listed[key] then keys[#keys + 1], is_listed[key] = key, true end
    end
    for from = 1, #keys, 4000 do call('EXISTS', unpack(keys, from, math.min(from + 3999, #keys))) end
  end
  for i = 1, #writes do
    local command = writes[i]
    local last, from, answer = #command, 4001, nil
    -- In parts that `unpack` can take.
    if last <= 4000 then answer = redis.pcall(unpack(command)) else answer = redis.pcall(unpack(command, 1, 4000)) end
    repeat
      -- An index of a wrong type is passed over: tasks are authoritative, a repair rebuilds the index, and the other writes of
      -- the call must not be lost with it.
      if type(answer) == 'table' and answer.err and not string.find(answer.err, '^WRONGTYPE') then error(answer) end
      local is_done = from > last
      if not is_done then answer = redis.pcall(command[1], command[2], unpack(command, from, math.min(from + 3999, last))) end
      from = from + 4000
    until is_done
  end
  if stage_events then stage_events() end
  if messages then
    -- The end of the second key names the database and the data set of a channel.
    local scope = string.sub(KEYS[2], #base + 13)
    for i = 1, #messages, 2 do redis.pcall('SPUBLISH', base .. messages[i] .. scope, messages[i + 1]) end
  end
  return packed
end
