--[[ remove_queue: forgets the counts of a queue without tasks, and its name, unless a copy of its settings is left.

KEYS    count:<queue>, settings_copy:<queue>, queues, due, wheel:<queue>, scheduled:<queue>, leased:<queue>,
        ended:<queue>:<state>
ARGV[5] queue       name
RETURNS 'removed' | 'not_empty': tasks wait or are leased | 'has_ended': ended tasks are left
MOVES   -
COST    O(log queues)
]]
if last_reply then return last_reply end

local queue, reply = ARGV[5], 'removed'
local counts, ended = base .. 'count:' .. queue, base .. 'ended:' .. queue .. ':'
local unended = call('EXISTS', base .. 'wheel:' .. queue, base .. 'scheduled:' .. queue, base .. 'leased:' .. queue)
if unended > 0 then
  reply = 'not_empty'
elseif call('EXISTS', ended .. 'completed', ended .. 'dead', ended .. 'cancelled', ended .. 'expired') > 0 then
  reply = 'has_ended'
else
  if call('EXISTS', base .. 'settings_copy:' .. queue) == 0 then zset_remove(base .. 'queues', queue) end
  -- The counts of the shard keep the tasks of the queue as submitted and deleted.
  write_last('DEL', counts)
  write_last('ZREM', base .. 'due', queue)
end
return commit(reply)
