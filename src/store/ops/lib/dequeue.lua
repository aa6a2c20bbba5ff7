-- dequeue: takes tasks out of slot queues other than by a claim.
--
-- defines: dequeue, requeue
-- needs: transaction, wheel

-- Takes a task out of a keyed slot queue, also if it was set back.
local function remove_keyed(entry, task, seq)
  local key_digest, id = task[F.key_digest], task.id
  zset_remove(entry.key, keyed_member(key_digest, seq, id))
  zset_remove(entry.key, set_back_member(seq, id))
end

local function dequeue(task)
  local queue, key_digest, seq = task[F.queue], task[F.key_digest], task[F.seq]
  local entry, record, piece = slot_of(queue, task[F.priority], task[F.slot], key_digest), record_of(queue), nil
  if key_digest == '' and record.has_slot_pieces then
    use_pieces()
    piece = piece_of(record, entry, seq)
  end
  if not piece then entry.added, entry.has_removals = entry.added - 1, true end
  if key_digest ~= '' then remove_keyed(entry, task, seq) else zset_remove(piece or entry.key, task.id) end
end

-- Gives a ready task another position in its slot queue. Without a key, it is added and removed only where that is in another
-- piece: an addition moves a member, and a removal comes after it.
local function requeue(task, old_seq, seq)
  local queue, key_digest = task[F.queue], task[F.key_digest]
  local entry, record, old_key, key = slot_of(queue, task[F.priority], task[F.slot], key_digest), record_of(queue), nil, nil
  if key_digest ~= '' then
    remove_keyed(entry, task, old_seq)
    zset_add(entry.key, '0', keyed_member(key_digest, seq, task.id))
    return
  end
  if record.has_slot_pieces then
    use_pieces()
    old_key, key = piece_of(record, entry, old_seq), piece_of(record, entry, seq, true)
  end
  if old_key == key then
    zset_add(key or entry.key, digits(seq), task.id)
  else
    if not old_key then entry.added, entry.has_removals = entry.added - 1, true end
    zset_remove(old_key or entry.key, task.id)
    enqueue(task, seq)
  end
end
