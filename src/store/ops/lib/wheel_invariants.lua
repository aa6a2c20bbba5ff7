-- wheel_invariants: the invariants of the wheel of a queue.
--
-- defines: check_front, check_passes, checks.wheel_entry
-- needs: invariants
-- keys: wheel:<queue>, settings_copy:<queue>, slot:<queue>:<priority>:<slot>, slot:<queue>:<priority>:<slot>:k

-- The front and the flags in the record of a queue are those of its wheel and of its settings.
local function check_front(flag, queue, record)
  local member = call('ZRANGE', base .. 'wheel:' .. queue, 0, 0)[1]
  local expected, front = member and tonumber(string.match(member, '^%d+')), front_of(record)
  local paused = call('HGET', base .. 'settings_copy:' .. queue, 'paused') == '1'
  if paused ~= is_paused(record) then
    flag('it is ' .. (paused and 'paused' or 'not paused') .. ', but its record says otherwise', 'corrected')
    record[L.queue.flags] = record[L.queue.flags] + (paused and 1 or -1)
    record[L.queue.behind] = true
  end
  if front ~= expected then
    flag('priority at the front is ' .. (front or 'none') .. ', expected ' .. (expected or 'none'), 'corrected')
    set_front(queue, expected)
    if expected and not paused then notify('ready ' .. expected .. ' ' .. queue) end
  end
  return member ~= nil
end

-- Only a keyed slot queue on the wheel has a pass in the middle.
local function check_passes(flag, queue, record)
  local kept = {}
  for at = 1, #record.passes, L.pass.bytes do
    local _, list, slot = struct.unpack(L.pass.before_key_digest, record.passes, at)
    local member = list - 20 .. ':' .. slot .. ':k'
    if call('ZSCORE', base .. 'wheel:' .. queue, member) then
      kept[#kept + 1] = string.sub(record.passes, at, at + L.pass.bytes - 1)
    else
      flag('a pass over ' .. member .. ' is in the middle, but it has no ready task', 'removed')
    end
  end
  if #kept < record[L.queue.passes] then
    record.passes, record[L.queue.passes], record[L.queue.behind] = table.concat(kept), #kept, true
  end
end

-- A slot queue is on the wheel, in the range of its priority, if and only if it has tasks. If only its pieces have some, the
-- first one becomes its head.
function checks.wheel_entry(flag, queue, member)
  local wheel, slot, record = base .. 'wheel:' .. queue, base .. 'slot:' .. queue .. ':' .. member, record_of(queue)
  local size, score = call('ZCARD', slot), tonumber(call('ZSCORE', wheel, member))
  if size == 0 and record.tail ~= '' then
    use_pieces()
    local ids = move_first_piece(record, member, slot)
    if ids then
      flag('its head is empty, but pieces are left', 'moved')
      size = #ids
    end
  end
  if size == 0 then
    if not score then return end
    flag('on the wheel without a ready task', 'removed')
    zset_remove(wheel, member)
    return
  end
  local from = (9 - tonumber(string.match(member, '^%d+'))) * TURNS
  if score and score >= from and score < from + TURNS then return end
  flag((score and 'outside its priority on the wheel' or 'missing from the wheel') .. ', with ' .. size .. ' ready tasks', 'added')
  zset_add(wheel, from + next_turn(), member)
end
