--[[ complete: ends leased tasks as completed, if their tokens hold the leases.

ARGV[5] retain_ms   how long a completed task without its own retention is kept
ARGV[6] count       of tasks; then for each: id, token, result
RETURNS {'completed'} | {'repeated', state, run_at | '', 1 if the result was dropped} | {'lease_lost', state} | {'unknown'}, for each task
MOVES   leased -> completed
COST    O(n log leased)
]]
local NO_FIELDS, COMPLETE_FIELDS = {}, { F.claim_digest, F.dedupe_digest, F.completion_watched, F.retain_ms }
local tasks, answer = open_with_tasks(tonumber(ARGV[6]), 7, 3, NO_FIELDS)
if answer then return answer end

local replies, completed = {}, { 'completed' }
for i, task in ipairs(tasks) do
  local at = 4 + 3 * i
  local token, result = ARGV[at + 1], ARGV[at + 2]
  local reply = check_lease(task, token, 'complete')
  -- A dropped result is one byte.
  if reply and reply[1] == 'repeated' and call('HSTRLEN', task.key, F.result) == 1 then reply[4] = 1 end
  if not reply then
    reply = completed
    if task[F.options] >= END_OPTIONS or task[F.has_claim] == 1 then read_fields(task, COMPLETE_FIELDS) end
    local command = { 'HSET', task.key, F.state, 'completed', F.finished_at, now, end_lease(task, 'complete', 'completed') }
    if result ~= '' then set_field(command, F.result, result) end
    write_task(task, command)
    finish_task(task, 'completed', ARGV[5])
    transition(task, 'leased', 'completed')
  end
  replies[i] = reply
end
return commit(replies)
