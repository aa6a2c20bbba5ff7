--[[ complete: ends leased tasks as completed, if their tokens hold the leases.

ARGV[5] retain_ms   how long a completed task without its own retention is kept
ARGV[6] count       of tasks; then for each: id, token, result
RETURNS the replies of complete_tasks
MOVES   leased -> completed
COST    O(n log leased)
]]
return commit(replies)
