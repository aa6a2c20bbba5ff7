--[[ verify_invariants: whether things are wrong, each looked at in one piece.

KEYS[1] calls       hash   the declared key that carries the shard's tag
ARGV[1] base        derives base .. 'task:' .. id (hash), base .. 'slot:' .. queue .. ':' .. priority .. ':' .. slot (zset),
                    base .. 'wheel:' .. queue (zset), base .. 'ready' (zset), base .. 'scheduled:' .. queue (zset),
                    base .. 'leased:' .. queue (zset), base .. 'due' (zset), base .. 'deadline' (zset),
                    base .. 'ended:' .. queue .. ':' .. state (zset), base .. 'retain' (zset), base .. 'count:' .. queue (hash),
                    base .. 'count' (hash), base .. 'queues' (zset), base .. 'queue:' .. queue (hash),
                    base .. 'dedupe:' .. queue .. ':' .. digest (string), base .. 'idem:' .. digest (hash),
                    base .. 'claim:' .. digest (set), base .. 'seq' (hash), base .. 'settings:' .. queue (hash),
                    base .. 'configured' (zset)
                                                                    same tag as KEYS[1]
ARGV[2] offset_ms   '' in production; tests move time with it
ARGV[3] count       of things to look at; then for each: its kind, the number of its arguments, the arguments
RETURNS {{what is wrong, what would mend it}, …} of each
MOVES   -
COST    O(n log queue); counts: the slots with ready tasks, 16384 at most; total: the queues, 4096 at most
]]
return cmsgpack.pack(examine(3))
