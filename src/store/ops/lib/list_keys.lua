-- list_keys: in which key of its list a ready or an ended task must be.
--
-- defines: key_of, know_piece
-- needs: records, task, wheel, index_end

-- Returns the list in which the task must be, and its position there; nil: it is in none.
local function list_of(task)
  local state = task[F.state]
  if state == 'ready' then return slot_of(task[F.queue], task[F.priority], task[F.slot], task[F.key_digest]), task[F.seq] end
  if state ~= 'scheduled' and state ~= 'leased' then return ended_list(task[F.queue], state), task[F.end_seq] end
end

-- Returns the key of the head or of the piece in which the task must be; nil: it is in no list.
local function key_of(task)
  local list, seq = list_of(task)
  if not list then return nil end
  local record = record_of(task[F.queue])
  if record.tail == '' then return list.key end
  use_pieces()
  return piece_of(record, list, seq) or list.key
end

-- Makes the piece of the task known to the record of the queue.
local function know_piece(flag, task)
  local list, seq = list_of(task)
  local record = record_of(task[F.queue])
  local tail = record.tail
  if tail == '' then return end
  piece_of(record, list, seq, true)
  if flag and record.tail ~= tail then flag('its piece is behind the last one in the record of the queue', 'corrected') end
end
