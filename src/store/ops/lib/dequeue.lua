-- dequeue: takes tasks out of slot queues other than by a claim.
--
-- defines: dequeue
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
