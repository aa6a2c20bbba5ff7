--[[ verify_invariants: checks invariants, each atomically.

ARGV[3] retain_ms   how long a completed task without its own retention is kept
ARGV[4] retain_ms   how long a dead one is
ARGV[5] retain_ms   how long a cancelled or expired one is
ARGV[6] count       of invariants; then for each: its kind, the number of its arguments, the arguments
RETURNS {{violation, repair that is possible}, …} for each invariant
MOVES   -
COST    O(n log queue); queue_counts: at most 32768 slot queues with ready tasks; shard_counts: at most 4096 queues
]]
default_retain_ms = { completed = ARGV[3], dead = ARGV[4], cancelled = ARGV[5], expired = ARGV[5] }
return cmsgpack.pack(check_invariants(6))
