--[[ repair: set right what does not fit the tasks as they are, each thing once it is found wrong again here.

KEYS[1] calls       hash   last call of each pump; the declared key that carries the shard's tag
ARGV[1] base        derives base .. 'task:' .. id (hash), base .. 'slot:' .. queue .. ':' .. priority .. ':' .. slot (zset),
                    base .. 'wheel:' .. queue (zset), base .. 'ready' (zset), base .. 'scheduled:' .. queue (zset),
                    base .. 'leased:' .. queue (zset), base .. 'due' (zset), base .. 'deadline' (zset),
                    base .. 'ended:' .. queue .. ':' .. state (zset), base .. 'retain' (zset), base .. 'count:' .. queue (hash),
                    base .. 'count' (hash), base .. 'queues' (zset), base .. 'queue:' .. queue (hash),
                    base .. 'dedupe:' .. queue .. ':' .. digest (string), base .. 'idem:' .. digest (hash),
                    base .. 'claim:' .. digest (set), base .. 'seq' (hash), base .. 'settings:' .. queue (hash),
                    base .. 'configured' (zset)
                                                                    same tag as KEYS[1]
ARGV[2] pump        who calls
ARGV[3] number      number of this call: repeated, it answers as before
ARGV[4] offset_ms   '' in production; tests move time with it
ARGV[5] retain_ms   how long a completed task is kept that does not say
ARGV[6] retain_ms   how long a dead one is
ARGV[7] retain_ms   how long a cancelled or expired one is
ARGV[8] count       of things to look at; then for each: its kind, the number of its arguments, the arguments
RETURNS {{what was wrong, what was done}, …} of each
MOVES   -
COST    O(n log queue); counts: the slots with ready tasks, 16384 at most; total: the queues, 4096 at most
]]
if last then return last end

retain_of = { completed = ARGV[5], dead = ARGV[6], cancelled = ARGV[7], expired = ARGV[7] }
local replies = examine(8)
turn_wheels()
return commit(cmsgpack.pack(replies))
