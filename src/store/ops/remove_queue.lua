--[[ remove_queue: forgets the counts of a queue without tasks, and its name, unless a copy of its settings is left.

KEYS    settings_copy:<queue>, queues, wheel:<queue>, scheduled:<queue>, leased:<queue>, ended:<queue>:<state>,
        ended_due
ARGV[5] queue       name
RETURNS 'removed' | 'not_empty': tasks wait or are leased | 'has_ended': ended tasks are left
MOVES   -
COST    O(log queues)
]]
local answer = open_call({ ARGV[5] })
if answer then return answer end

local queue, reply = ARGV[5], 'removed'
local ended = base .. 'ended:' .. queue .. ':'
local unended = call('EXISTS', base .. 'wheel:' .. queue, base .. 'scheduled:' .. queue, base .. 'leased:' .. queue)
if unended > 0 then
  reply = 'not_empty'
elseif call('EXISTS', ended .. 'completed', ended .. 'dead', ended .. 'cancelled', ended .. 'expired') > 0 then
  reply = 'has_ended'
else
  -- The counts of the shard keep the tasks of the queue as submitted and deleted.
  local record, has_settings = record_of(queue), call('EXISTS', base .. 'settings_copy:' .. queue) == 1
  for _, place in pairs(COUNTS) do record[place] = 0 end
  record[L.queue.flags] = record[L.queue.flags] % 2
  for _, state in ipairs({ 'completed', 'dead', 'cancelled', 'expired' }) do zset_remove(base .. 'ended_due', queue .. ':' .. state) end
  set_front(queue, nil)
  set_due(queue)
  if not has_settings then
    zset_remove(base .. 'queues', queue)
    record[L.queue.behind] = false
    write_last('HDEL', callers, 'queue:' .. queue)
  end
end
return commit(reply)
