--[[ ended: returns the lists of ended tasks of a page of queues, and the size of a few ended tasks.

KEYS    queues, ended:<queue>:<state>, ended:<queue>:<state>:<piece>, ended_due, retention, task:<id>
ARGV[3] after       name of the last queue of the page before; '' for the first page
ARGV[4] queues      maximum of queues
ARGV[5] samples     maximum of tasks whose size is read
RETURNS {name of the last queue, or '' if there are no more; number of ended tasks; sampled tasks; their bytes;
        queue, state, time of the first end for each list that is not empty}
MOVES   -
COST    O(queues log ended + samples), and at most 500 lists for samples
]]
local after, queues, samples = ARGV[3], tonumber(ARGV[4]), tonumber(ARGV[5])
accepts_unreadable = true
local names = call('ZRANGEBYLEX', base .. 'queues', after == '' and '-' or '(' .. after, '+', 'LIMIT', 0, queues)
local reply = { queues > 0 and #names == queues and names[#names] or '', 0, 0, 0 }
if shard_raw and #shard_raw == L.shard.bytes and string.byte(shard_raw) == L.shard.version then
  local record = { struct.unpack(L.shard.format, shard_raw) }
  reply[2] = record[L.shard.completed] + record[L.shard.dead] + record[L.shard.cancelled] + record[L.shard.expired]
end
if samples > 0 then
  local lists, total, passed, taken = {}, 0, 0, 0
  local function add_list(key, size)
    lists[#lists + 1], total = { key = key, size = size }, total + size
  end
  add_list(base .. 'retention', tonumber(redis.pcall('ZCARD', base .. 'retention')) or 0)
  -- Of a list in pieces, one of them is sampled for all.
  local random = call('TIME')[2]
  for _, list in ipairs(call('ZRANDMEMBER', base .. 'ended_due', 500)) do
    local queue, state = string.match(list, '^(.+):(%a+)$')
    local key, record = base .. 'ended:' .. list, queue and record_of(queue)
    local size, pieces = queue and COUNTS[state] and record[COUNTS[state]] or 0, nil
    if queue and record.tail ~= '' then
      use_pieces()
      pieces = pieces_of(record)[state]
    end
    if pieces then key = key .. ':' .. digits(pieces.first + random % (pieces.last - pieces.first + 1)) end
    add_list(key, size)
  end
  -- A list has as many samples as its share of the tasks.
  for _, list in ipairs(lists) do
    passed = passed + list.size
    local count = total > 0 and math.floor(passed * samples / total) - taken or 0
    taken = taken + count
    for _, id in ipairs(count > 0 and redis.pcall('ZRANDMEMBER', list.key, count) or {}) do
      local bytes = call('MEMORY', 'USAGE', base .. 'task:' .. id, 'SAMPLES', 0)
      if bytes then reply[3], reply[4] = reply[3] + 1, reply[4] + bytes end
    end
  end
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
