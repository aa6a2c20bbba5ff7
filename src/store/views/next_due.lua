--[[ next_due: Redis' time, and what comes next.

KEYS[1] calls       hash   the declared key that carries the shard's tag
ARGV[1] base        derives base .. 'due' (zset), base .. 'deadline' (zset), base .. 'retain' (zset)
                                                                    same tag as KEYS[1]
ARGV[2] offset_ms   '' in production; tests move time with it
ARGV[3] limit       queues at most
RETURNS {now, first time in due | '', first deadline | '', first time to drop | '', queue that is due, …}
MOVES   -
COST    O(limit)
]]
local answer = { now }
for place, key in ipairs({ 'due', 'deadline', 'retain' }) do
  answer[place + 1] = call('ZRANGE', base .. key, 0, 0, 'WITHSCORES')[2] or ''
end
local due = call('ZRANGEBYSCORE', base .. 'due', '-inf', digits(now), 'LIMIT', 0, ARGV[3])
for _, queue in ipairs(due) do answer[#answer + 1] = queue end
return cmsgpack.pack(answer)
