-- close_queue: brings the wheel of a queue to its state after a claim.
--
-- defines: close_queue
-- needs: transaction, records, wheel_reader, key_reader

-- Stages the wheel as it is after this call. Returns the priority at its front, nil if it is empty.
local function close_queue(queue)
  if key_reader then key_reader.close_passes(queue) end
  local member, front, kept, slots_of_priority, emptied = next_unvisited(queue), nil, nil, nil, nil
  if member then front = string.byte(member) - 48 end
  for _, entry in ipairs(queue.visited) do
    if entry.is_gone then
      zset_remove(queue.wheel, entry.member)
      if emptied then emptied[#emptied + 1] = entry.key else emptied = { 'DEL', entry.key } end
    else
      local priority = entry.priority
      kept, slots_of_priority = kept or {}, slots_of_priority or (member and { [front] = 1 } or {})
      kept[#kept + 1] = entry
      slots_of_priority[priority] = (slots_of_priority[priority] or 0) + 1
      if entry.taken then removals[entry.key] = entry.taken end
    end
  end
  if emptied then write_last(unpack(emptied)) end
  if not kept then return front end
  if kept[2] then table.sort(kept, function(one, other) return (one.turn or 0) < (other.turn or 0) end) end
  for _, entry in ipairs(kept) do
    local priority = entry.priority
    if not front or priority > front then front = priority end
    -- A slot that is alone in its priority is at its rear already.
    if entry.turn and slots_of_priority[priority] > 1 then
      zset_add(queue.wheel, digits((9 - priority) * 2 ^ 49 + next_turn()), entry.member)
    end
  end
  return front
end
