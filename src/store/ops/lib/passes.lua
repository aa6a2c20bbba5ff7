-- passes: the turns of keyed slot queues in which a call has stopped. A turn is one pass over the keys of the slot, one task
-- each. A pass that a call leaves in the middle is in the record of the queue, with the key that was served last, and the
-- position up to which it serves tasks: tasks that come later wait for the next pass. Its slot queue keeps its place on the
-- wheel meanwhile.
--
-- defines: the end of define_passes(), which returns two functions: find_pass, set_pass
-- needs: records

-- A returned turn puts its slot in front of one in whose pass a call has stopped, so there may be several. Beyond these, the
-- oldest pass is forgotten, and its slot queue begins a new one.
local MAX_PASSES = 32

-- Returns the start of the record of a pass. Slot queues of tasks without a key have none.
local function start_of(member)
  local priority, slot, suffix = string.match(member, '^(%d):(%d+)(.*)$')
  return struct.pack(L.pass.before_key_digest, L.pass.version, priority + (suffix == '' and 0 or 20), slot)
end

-- Returns the place of the pass of a slot queue in `record.passes`; nil: it has none.
local function place_of(record, member)
  local start = start_of(member)
  for at = 1, #record.passes, L.pass.bytes do
    if string.sub(record.passes, at, at + #start - 1) == start then return at end
  end
end

-- Returns the key of the pass over a slot queue, and the last position that it serves; nil: none is in the middle.
local function find_pass(record, member)
  local at = place_of(record, member)
  if not at then return nil end
  local _, _, _, key_digest, until_seq = struct.unpack(L.pass.format, record.passes, at)
  return key_digest, until_seq
end

-- Notes where the pass over a slot queue has stopped; without a key: it is over.
local function set_pass(record, member, key_digest, until_seq)
  local passes, at = record.passes, place_of(record, member)
  if at then passes = string.sub(passes, 1, at - 1) .. string.sub(passes, at + L.pass.bytes) end
  if key_digest then
    passes = start_of(member) .. struct.pack(L.pass.from_key_digest, key_digest, until_seq)
      .. string.sub(passes, 1, (MAX_PASSES - 1) * L.pass.bytes)
  end
  record.passes, record[L.queue.passes], record[L.queue.behind] = passes, #passes / L.pass.bytes, true
end

return find_pass, set_pass
