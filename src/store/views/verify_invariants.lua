--[[ verify_invariants: checks invariants, each atomically.

ARGV[3] count       of invariants; then for each: its kind, the number of its arguments, the arguments
RETURNS {{violation, repair that is possible}, …} for each invariant
MOVES   -
COST    O(n log queue); queue_counts: at most 16384 slots with ready tasks; shard_counts: at most 4096 queues
]]
return cmsgpack.pack(check_invariants(3))
