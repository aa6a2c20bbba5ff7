-- ended_flag: the flags of queues whose ended tasks are in `ended_due`.
--
-- defines: ended_flag
-- needs: records, index_end

-- Returns the flag of a state, a power of 2, and whether the record has it.
local function ended_flag(record, queue, state)
  local flag = 2 ^ (ended_list(queue, state).number + 1)
  return flag, math.floor(record[L.queue.flags] / flag) % 2 == 1
end
