-- dequeue: takes tasks out of slot queues other than by a claim.
--
-- defines: dequeue
-- needs: transaction, wheel

local function dequeue(queue, priority, slot, id)
  local entry = slot_of(queue, priority, slot)
  entry.added = entry.added - 1
  entry.has_removals = true
  zset_remove(entry.key, id)
end
