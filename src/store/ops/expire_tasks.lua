--[[ expire_tasks: end tasks whose deadline has passed while they wait.

KEYS[1] calls       hash   last call of each pump; the declared key that carries the shard's tag
ARGV[1] base        derives base .. 'task:' .. id (hash), base .. 'slot:' .. queue .. ':' .. priority .. ':' .. slot (zset),
                    base .. 'wheel:' .. queue (zset), base .. 'ready' (zset), base .. 'scheduled:' .. queue (zset),
                    base .. 'deadline' (zset), base .. 'ended:' .. queue .. ':' .. state (zset), base .. 'retain' (zset),
                    base .. 'count:' .. queue (hash), base .. 'count' (hash), base .. 'queue:' .. queue (hash),
                    base .. 'dedupe:' .. queue .. ':' .. digest (string), base .. 'seq' (hash), base .. 'listen' (string)
                                                                    same tag as KEYS[1]
ARGV[2] pump        who calls
ARGV[3] number      number of this call: repeated, it answers as before
ARGV[4] offset_ms   '' in production; tests move time with it
ARGV[5] retain_ms   how long an expired task is kept that does not say
ARGV[6] limit       so many tasks at most
RETURNS {tasks ended, tasks looked at}; `limit` of these: there may be more
MOVES   ready -> expired, scheduled -> expired
COST    O(n log queue)
]]
if last then return last end

local ended = 0
local ids = call('ZRANGEBYSCORE', base .. 'deadline', '-inf', digits(now), 'LIMIT', 0, ARGV[6])
touched[base .. 'deadline'] = true
for _, id in ipairs(ids) do
  local task = load(id, WAITING)
  if task and leave_waiting(task) then
    write('HSET', task.key, 'S', 'expired', 'f', now)
    conclude(task, 'expired', ARGV[5])
    move(task, task.S, 'expired')
    ended = ended + 1
  end
end
turn_wheels()
return commit(cmsgpack.pack({ ended, #ids }))
