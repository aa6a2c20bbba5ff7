-- slot_keys: in which key of its slot queue a ready task must be.
--
-- defines: slot_key_of, check_last_piece
-- needs: records, task, wheel

-- Returns the key of the slot queue or of the piece in which a ready task must be.
local function slot_key_of(task)
  local record, entry = record_of(task[F.queue]), slot_of(task[F.queue], task[F.priority], task[F.slot])
  if record.tail == '' then return entry.key end
  use_pieces()
  return piece_of(record, entry, task[F.seq]) or entry.key
end

-- Checks that the record of the queue knows the piece in which a ready task is.
local function check_last_piece(flag, task)
  local record = record_of(task[F.queue])
  local tail = record.tail
  if tail == '' then return end
  piece_of(record, slot_of(task[F.queue], task[F.priority], task[F.slot]), task[F.seq], true)
  if record.tail ~= tail then flag('its piece is behind the last one in the record of the queue', 'corrected') end
end
