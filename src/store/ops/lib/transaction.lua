-- transaction: the transaction. A script reads, stages its writes, and ends with `return commit(reply)`.
--
-- A script that is stopped half-way keeps its earlier writes. Therefore `commit` writes in a fixed order: values and
-- fields, added zset members, the records in `callers`, removed zset members, and last the writes that may delete a key.
-- No key is touched after a write that may have emptied it. On a Cluster every key is touched before the first write.
-- Wake-ups follow the writes. Nothing may fail then, so a message that Redis denies is dropped: its receivers poll.
-- Fragments register functions: those in `before_commit` may stage writes; `after_commit`, if it is set, stages messages.
-- A script pays for each function and table it defines, so fragments define few, and `commit` is one long function.
--
-- defines: before_commit, after_commit, stage_records; set_field, zset_add, zset_remove, write, write_last, notify, commit;
--   touched, writes, removals
-- needs: prelude, clock; records, which sets stage_records
-- keys: callers
local before_commit, after_commit, stage_records = {}, nil, nil
local zset_adds, removals, writes, last_writes, messages = {}, {}, {}, {}, {}
-- Keys that the script has read; the others are read before the first write.
local touched = { [callers] = true }

-- Appends to the command of a key.
local function append(commands, name, key, first, second)
  local list = commands[key]
  if not list then
    commands[key] = { name, key, first, second }
    return
  end
  local n = #list
  list[n + 1] = first
  if second then list[n + 2] = second end
end

-- Appends a field to an HSET that is being built.
local function set_field(command, name, value)
  local n = #command
  command[n + 1], command[n + 2] = name, value
end

local function zset_add(key, score, member)
  append(zset_adds, 'ZADD', key, score, member)
end

local function zset_remove(key, member)
  append(removals, 'ZREM', key, member)
end

-- Stages a write that cannot empty its key.
local function write(...)
  writes[#writes + 1] = { ... }
end

-- Stages a write that deletes its key, or may empty it.
local function write_last(...)
  last_writes[#last_writes + 1] = { ... }
end

-- Stages a message on channel `wakeups`.
local function notify(text)
  local n = #messages
  messages[n + 1], messages[n + 2] = 'wakeups', text
end

-- Stages the commands as the next writes, in parts that `unpack` can take.
local function write_in_parts(commands)
  for key, command in pairs(commands) do
    if #command <= 4000 then
      writes[#writes + 1] = command
    else
      for from = 3, #command, 4000 do writes[#writes + 1] = { command[1], key, unpack(command, from, math.min(from + 3999, #command)) } end
    end
  end
end

-- Makes all staged writes, and returns the packed reply. A repeated call gets the same reply, or, where that would be out
-- of date, finds in `last_reply` the packed `remembered` instead.
local function commit(reply, remembered)
  for _, hook in ipairs(before_commit) do hook() end
  local packed = cmsgpack.pack(reply)
  callers_command[4] = struct.pack(L.call.format, L.call.version, sequence, now) .. (remembered and cmsgpack.pack(remembered) or packed)
  stage_records(callers_command)
  write_in_parts(zset_adds)
  writes[#writes + 1] = callers_command
  write_in_parts(removals)
  for _, command in ipairs(last_writes) do writes[#writes + 1] = command end

  if touches_keys then
    local untouched = {}
    for _, command in ipairs(writes) do
      local key = command[2]
      if not touched[key] then
        touched[key] = true
        untouched[#untouched + 1] = key
      end
    end
    for from = 1, #untouched, 4000 do call('EXISTS', unpack(untouched, from, math.min(from + 3999, #untouched))) end
  end
  local next_write = 1
  local function write_rest()
    for i = next_write, #writes do
      next_write = i + 1
      call(unpack(writes[i]))
    end
  end
  local is_done, failure = pcall(write_rest)
  -- An index of a wrong type is passed over: tasks are authoritative, a repair rebuilds the index, and the other writes of
  -- the call must not be lost with it.
  while not is_done do
    if not string.find(failure.err or failure, '^WRONGTYPE') then error(failure) end
    is_done, failure = pcall(write_rest)
  end
  if after_commit then after_commit() end
  -- The end of the second key names the database and the data set of a channel.
  for i = 1, #messages, 2 do redis.pcall('SPUBLISH', base .. messages[i] .. string.sub(KEYS[2], #base + 13), messages[i + 1]) end
  return packed
end
