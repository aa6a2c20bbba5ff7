--[[ fail: ends leased tasks as failed attempts; each task is retried, or ends dead, cancelled or expired.

ARGV[5] retain_ms   how long a dead task without its own retention is kept
ARGV[6] retain_ms   how long a cancelled or expired one is
ARGV[7] errors      maximum of errors that a task keeps
ARGV[8] bytes       maximum of their bytes in all; the last error is kept whatever its size
ARGV[9] count       of tasks; then for each: id, token, error, wait_ms, or '' for no further attempt
RETURNS {'failed', state, run_at | ''} | {'repeated', state, run_at | ''} | {'lease_lost', state} | {'unknown'}, for each task
MOVES   leased -> scheduled | ready | dead | cancelled | expired
COST    O(n log queue)
]]
local tasks, answer = open_with_tasks(tonumber(ARGV[9]), 10, 4, ATTEMPT_FIELDS)
if answer then return answer end

local replies = {}
for i, task in ipairs(tasks) do
  local at = 6 + 4 * i
  local reply = check_lease(task, ARGV[at + 1], 'fail')
  if not reply then
    local state, run_at = fail_attempt(task, 'fail', ARGV[at + 2], tonumber(ARGV[at + 3]))
    reply = { 'failed', state, run_at or '' }
  end
  replies[i] = reply
end
return commit(replies)
