--[[ repair: repairs indexes, counts and keys that contradict the tasks; checks each invariant again before it writes.

ARGV[5] retain_ms   how long a completed task without its own retention is kept
ARGV[6] retain_ms   how long a dead one is
ARGV[7] retain_ms   how long a cancelled or expired one is
ARGV[8] count       of invariants; then for each: its kind, the number of its arguments, the arguments
RETURNS {{violation, repair}, …} for each invariant
MOVES   -
COST    O(n log queue); queue_counts: at most 32768 slot queues with ready tasks; shard_counts: at most 4096 queues
]]
local answer = open_call()
if answer then return answer end

default_retain_ms = { completed = ARGV[5], dead = ARGV[6], cancelled = ARGV[7], expired = ARGV[7] }
return commit(check_invariants(8))
