-- dequeue: takes tasks out of slot queues other than by a claim.
--
-- defines: dequeue, requeue
-- needs: transaction, wheel

local function dequeue(queue, priority, slot, seq, id)
  local entry, record, piece = slot_of(queue, priority, slot), record_of(queue), nil
  if record.has_slot_pieces then
    use_pieces()
    piece = piece_of(record, entry, seq)
  end
  if not piece then entry.added, entry.has_removals = entry.added - 1, true end
  zset_remove(piece or entry.key, id)
end

-- Gives a ready task another position in its slot queue. It is added and removed only where that is in another key: an addition
-- moves a member, and a removal comes after it.
local function requeue(queue, priority, slot, old_seq, seq, id)
  local entry, record, old_key, key = slot_of(queue, priority, slot), record_of(queue), nil, nil
  if record.has_slot_pieces then
    use_pieces()
    old_key, key = piece_of(record, entry, old_seq), piece_of(record, entry, seq, true)
  end
  if old_key == key then
    zset_add(key or entry.key, seq, id)
  else
    dequeue(queue, priority, slot, old_seq, id)
    enqueue(queue, priority, slot, seq, id)
  end
end
