-- records: the records of the shard and of its queues, which are fields of `callers`; layout.rs has their bytes. In a script a
-- record is the list that `struct.unpack` returns. A missing record is one of zeros.
--
-- defines: raw_records, unreadable_records, accepts_unreadable; record_of, save_record, forget_record, shard_record, count,
--   next_counter, due_no_later, set_due, front_of, set_front, is_paused
-- needs: prelude or read_prelude, clock, transaction, whose stage_records it sets
-- keys: callers, due
local shard, is_shard_changed, queue_records, changed_records = nil, false, {}, {}
-- Queue -> its record as open_call has read it; records that cannot be read, and whether they count as missing.
local raw_records, unreadable_records, accepts_unreadable = {}, {}, false
-- Queues whose time in `due` becomes earlier; queues whose time is that of their record, whatever it was.
local earlier_queues, moved_queues = {}, {}
-- Places of the counts in the records of queues and of the shard.
local COUNTS = { ready = L.queue.ready, scheduled = L.queue.scheduled, leased = L.queue.leased, completed = L.queue.completed,
  dead = L.queue.dead, cancelled = L.queue.cancelled, expired = L.queue.expired, submitted = L.queue.submitted,
  deleted = L.queue.deleted }

-- Unpacks a record of `bytes` bytes, which is one of zeros if it is missing. A call that needs an unreadable record fails.
local function unpack_record(name, raw, format, version, bytes)
  if raw and (#raw ~= bytes or string.byte(raw) ~= version) then
    if not accepts_unreadable then error('UNREADABLE the record of ' .. name) end
    unreadable_records[name], raw = true, nil
  end
  return { struct.unpack(format, raw or string.char(version) .. string.rep('\0', bytes - 1)) }
end

-- Returns the record of a queue.
local function record_of(queue)
  local record = queue_records[queue]
  if not record then
    local raw = raw_records[queue]
    if raw == nil then
      raw = call('HGET', callers, 'queue:' .. queue)
      raw_records[queue] = raw
    end
    record = unpack_record(queue, raw, L.queue.format, L.queue.version, L.queue.bytes)
    queue_records[queue] = record
  end
  return record
end

-- Has commit write the record of the queue.
local function save_record(queue)
  changed_records[queue] = queue_records[queue]
end

-- Deletes the record of the queue.
local function forget_record(queue)
  changed_records[queue] = nil
  write_last('HDEL', callers, 'queue:' .. queue)
end

local function shard_record()
  if not shard then
    local raw = call_values and call_values[3]
    if not call_values then raw = call('HGET', callers, 'shard') end
    shard = unpack_record('the shard', raw, L.shard.format, L.shard.version, L.shard.bytes)
    -- Turns start in the middle of their range: slots are put in front of the first turn as well as behind the last.
    if shard[L.shard.turn] == 0 then shard[L.shard.turn] = 2 ^ 48 end
  end
  return shard
end

-- Adds `difference` to a count of the queue and of the shard. Wrong counts do not get below zero: a repair corrects them.
local function count(queue, name, difference)
  local place, record, of_shard = COUNTS[name], record_of(queue), shard or shard_record()
  local in_queue, in_shard = record[place] + difference, of_shard[place] + difference
  record[place] = in_queue > 0 and in_queue or 0
  of_shard[place] = in_shard > 0 and in_shard or 0
  changed_records[queue], is_shard_changed = record, true
end

-- Returns the next value of a counter of the shard: 'seq' orders tasks in a slot queue, 'turn' slots on a wheel.
local function next_counter(name)
  local place, record = name == 'seq' and L.shard.seq or L.shard.turn, shard or shard_record()
  record[place], is_shard_changed = record[place] + 1, true
  return record[place]
end

-- Lowers the time of the queue in `due`, which is not later than that of its first scheduled or leased task. Its record has
-- the same time, so that most calls need no command.
local function due_no_later(queue, time)
  local record = record_of(queue)
  time = math.max(time, 1)
  local due = record[L.queue.due]
  if due == 0 or time < due then
    record[L.queue.due] = time
    changed_records[queue], earlier_queues[queue] = record, true
  end
end

-- Sets the time of the queue in `due`; nil: the queue is not due. A record says so by 0: an earlier time counts as 1.
local function set_due(queue, time)
  record_of(queue)[L.queue.due] = time and math.max(time, 1) or 0
  save_record(queue)
  moved_queues[queue] = true
end

-- Returns the priority at the front of the queue's wheel, nil if the wheel is empty.
local function front_of(record)
  local front = record[L.queue.front]
  return front > 0 and front - 1 or nil
end

local function set_front(queue, priority)
  local record, front = record_of(queue), priority and priority + 1 or 0
  if record[L.queue.front] == front then return end
  record[L.queue.front] = front
  save_record(queue)
end

local function is_paused(record)
  return record[L.queue.flags] % 2 == 1
end

-- Stages the times in `due`, and the records as fields of `command`. A time becomes earlier before the record says so, and
-- later after it: a stopped script leaves no queue that is due later than its record says. A record that was replaced, and
-- has no time, makes no time later.
stage_records = function(command)
  local key, earliest = base .. 'due', nil
  for queue in pairs(earlier_queues) do
    local time = record_of(queue)[L.queue.due]
    if not moved_queues[queue] then write('ZADD', key, 'LT', digits(time), queue) end
    if not earliest or time < earliest then earliest = time end
  end
  if earliest then
    -- Upkeep wakes for the first time that has not come. Earlier ones belong to work that it has begun or cannot do.
    local first = call('ZRANGEBYSCORE', key, '(' .. now_digits, '+inf', 'WITHSCORES', 'LIMIT', 0, 1)
    touched[key] = true
    if not first[2] or earliest < tonumber(first[2]) then notify('due ' .. digits(earliest)) end
  end
  for queue in pairs(moved_queues) do
    local time = record_of(queue)[L.queue.due]
    if time == 0 then zset_remove(key, queue) else write_last('ZADD', key, digits(time), queue) end
  end
  for queue, record in pairs(changed_records) do
    set_field(command, 'queue:' .. queue, struct.pack(L.queue.format, unpack(record)))
  end
  if is_shard_changed then set_field(command, 'shard', struct.pack(L.shard.format, unpack(shard))) end
end
