-- retained_invariants: the invariants of `ended_due`.
--
-- defines: checks.retained, check_ended_flags
-- needs: invariants, index_end
-- keys: ended_due

-- An ended task without its own retention is deleted in time: `ended_due` has its queue and state.
function checks.retained(flag, id)
  local task = find_task(id)
  if not task or task == UNREADABLE or not ENDED[task[F.state]] or task[F.retain_ms] then return end
  local key, queue, state = base .. 'ended_due', task[F.queue], task[F.state]
  local ended_at = tonumber(call('ZSCORE', key_of(task), id)) or task[F.finished_at]
  local due = ended_at + default_retain_ms[state]
  local found = tonumber(call('ZSCORE', key, queue .. ':' .. state))
  if found and found <= due then return end
  flag('time of ' .. state .. ' in ended_due is ' .. (found and digits(found) or 'missing') .. ', but it is due at ' .. digits(due), 'corrected')
  local record = record_of(queue)
  local bit_of_state, is_listed = ended_flag(record, queue, state)
  write('ZADD', key, 'LT', digits(due), queue .. ':' .. state)
  if not is_listed then record[L.queue.flags], record[L.queue.behind] = record[L.queue.flags] + bit_of_state, true end
end

-- The record of a queue says of no state that it is in `ended_due` if it is not.
local function check_ended_flags(flag, queue, record)
  for state in pairs(ENDED) do
    local bit_of_state, has_flag = ended_flag(record, queue, state)
    if has_flag and not call('ZSCORE', base .. 'ended_due', queue .. ':' .. state) then
      flag('its record says that ' .. state .. ' is in ended_due', 'corrected')
      record[L.queue.flags], record[L.queue.behind] = record[L.queue.flags] - bit_of_state, true
    end
  end
end
