--[[ ended: returns the lists of ended tasks of a page of queues, and the size of a few ended tasks.

KEYS    queues, ended:<queue>:<state>, retention, task:<id>
ARGV[3] after       name of the last queue of the page before; '' for the first page
ARGV[4] queues      maximum of queues
ARGV[5] samples     maximum of tasks whose size is read
RETURNS {name of the last queue, or '' if there are no more; number of ended tasks; sampled tasks; their bytes;
        queue, state, time of the first end for each list that is not empty}
MOVES   -
COST    O(queues log ended + samples)
]]
local after, queues, retention = ARGV[3], tonumber(ARGV[4]), base .. 'retention'
local names = call('ZRANGEBYLEX', base .. 'queues', after == '' and '-' or '(' .. after, '+', 'LIMIT', 0, queues)
local reply = { queues > 0 and #names == queues and names[#names] or '', call('ZCARD', retention), 0, 0 }
for _, id in ipairs(call('ZRANDMEMBER', retention, ARGV[5])) do
  local bytes = call('MEMORY', 'USAGE', base .. 'task:' .. id, 'SAMPLES', 0)
  if bytes then reply[3], reply[4] = reply[3] + 1, reply[4] + bytes end
end
for _, queue in ipairs(names) do
  for _, state in ipairs({ 'completed', 'dead', 'cancelled', 'expired' }) do
    -- A key of a wrong type does not keep the other lists from being read.
    local first = redis.pcall('ZRANGE', base .. 'ended:' .. queue .. ':' .. state, 0, 0, 'WITHSCORES')
    if first[2] then
      local n = #reply
      reply[n + 1], reply[n + 2], reply[n + 3] = queue, state, first[2]
    end
  end
end
return cmsgpack.pack(reply)
