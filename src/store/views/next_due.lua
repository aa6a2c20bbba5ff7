--[[ next_due: returns Redis' time and the next times at which upkeep has work.

KEYS    due, expirations, retention
ARGV[3] limit       maximum of queues
RETURNS {now, first time in due | '', first time of expiry | '', first end of a retention | '', queue that is due, …}
MOVES   -
COST    O(limit)
]]
local reply = { now }
for i, key in ipairs({ base .. 'due', base .. 'expirations', base .. 'retention' }) do
  reply[i + 1] = call('ZRANGE', key, 0, 0, 'WITHSCORES')[2] or ''
end
local queues = call('ZRANGEBYSCORE', base .. 'due', '-inf', digits(now), 'LIMIT', 0, ARGV[3])
for _, queue in ipairs(queues) do reply[#reply + 1] = queue end
return cmsgpack.pack(reply)
