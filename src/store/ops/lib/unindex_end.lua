-- unindex_end: takes tasks out of the lists of ended tasks.
--
-- defines: remove_from_head, unindex_end
-- needs: transaction, records, task, pieces, index_end
-- sets: stage_ended_lists
-- keys: retention

-- Notes that the call takes a task out of the head of a list.
local function remove_from_head(list)
  list.added, list.has_removals = list.added - 1, true
end

-- Takes an ended task out of the list of its state: out of the key `found_in`, or if that is nil out of that of its position.
local function unindex_end(task, found_in)
  local list, record, key = ended_list(task[F.queue], task[F.state]), record_of(task[F.queue]), found_in
  if not key and record.tail ~= '' then
    use_pieces()
    key = piece_of(record, list, task[F.end_seq])
  end
  key = key or list.key
  if key == list.key then remove_from_head(list) end
  zset_remove(key, task.id)
  if (task[F.retain_ms] or '') ~= '' then zset_remove(base .. 'retention', task.id) end
end

-- A head that this call empties gets the tasks of the first piece.
stage_ended_lists = function()
  for key, list in pairs(ended_lists) do
    local record = record_of(list.queue)
    if list.has_removals and record.tail ~= '' and call('ZCARD', key) + list.added <= 0 then
      use_pieces()
      move_first_piece(record, list.member, key)
    end
  end
end
