-- records: the records of the shard and of its queues, which are fields of `callers`; layout.rs has their bytes. In a script a
-- record is the list that `struct.unpack` returns. A missing record is one of zeros. The place behind the fields of a queue,
-- where `struct.unpack` leaves a number, is true if commit writes the record; `passes` and `tail` are the texts behind the
-- fields, and `has_slot_pieces` is whether a slot queue of it may have pieces.
--
-- defines: raw_records, accepts_unreadable, unreadable_records; record_of, shard_record, count, next_turn
-- needs: prelude or read_prelude, clock, transaction, whose stage_records it sets
-- keys: callers
local shard, is_shard_changed, queue_records = nil, false, {}
-- Queue -> its record as open_call has read it. Whether a record that cannot be read counts as missing.
local raw_records, accepts_unreadable, unreadable_records = {}, false, {}

-- Unpacks a record of `bytes` bytes, which is one of zeros if it is missing. Behind them may be `passes` records of passes, and
-- then entries of `tail_bytes` bytes. A call that needs an unreadable record fails.
local function unpack_record(name, raw, format, version, bytes, passes, tail_bytes)
  local from = bytes + passes * L.pass.bytes
  if raw and (#raw ~= from and (#raw < from or (#raw - from) % tail_bytes > 0) or string.byte(raw) ~= version) then
    if not accepts_unreadable then error('UNREADABLE the record of ' .. name) end
    unreadable_records[name], raw, passes = true, nil, 0
  end
  local record = { struct.unpack(format, raw or string.char(version) .. string.rep('\0', bytes - 1)) }
  record.passes = passes > 0 and string.sub(raw, bytes + 1, from) or ''
  record.tail = raw and #raw > from and string.sub(raw, from + 1) or ''
  -- Slot queues come first, and their numbers are below 10.
  record.has_slot_pieces = record.tail ~= '' and string.byte(record.tail, L.pieces.byte_list) < 10
  return record
end

-- Returns the record of a queue.
local function record_of(queue)
  local record = queue_records[queue]
  if not record then
    local raw = raw_records[queue]
    if raw == nil then raw = call('HGET', callers, 'queue:' .. queue) end
    local passes = raw and string.byte(raw, L.queue.byte_passes) or 0
    record = unpack_record(queue, raw, L.queue.format, L.queue.version, L.queue.bytes, passes, L.pieces.bytes)
    queue_records[queue] = record
  end
  return record
end

local function shard_record()
  if not shard then
    shard = unpack_record('the shard', shard_raw, L.shard.format, L.shard.version, L.shard.bytes, 0, math.huge)
    -- Turns start in the middle of their range: slots are put in front of the first turn as well as behind the last.
    if shard[L.shard.turn] == 0 then shard[L.shard.turn] = 2 ^ 48 end
  end
  return shard
end

-- Adds `difference` to a count of the queue and of the shard, by its place in both. Wrong counts do not get below zero: a
-- repair corrects them.
local function count(queue, place, difference)
  local record, of_shard = record_of(queue), shard or shard_record()
  local in_queue, in_shard = record[place] + difference, of_shard[place] + difference
  record[place] = in_queue > 0 and in_queue or 0
  of_shard[place] = in_shard > 0 and in_shard or 0
  record[L.queue.behind], is_shard_changed = true, true
end

-- Returns the next turn, a number that orders the slots on a wheel.
local function next_turn()
  local record = shard or shard_record()
  local turn = record[L.shard.turn] + 1
  record[L.shard.turn], is_shard_changed = turn, true
  return turn
end

-- Stages the records as fields of `command`.
stage_records = function(command)
  for queue, record in pairs(queue_records) do
    if record.store_pieces then record.store_pieces(record) end
    if record[L.queue.behind] == true then
      set_field(command, 'queue:' .. queue, struct.pack(L.queue.format, unpack(record)) .. record.passes .. record.tail)
    end
  end
  if is_shard_changed then set_field(command, 'shard', struct.pack(L.shard.format, unpack(shard))) end
end
