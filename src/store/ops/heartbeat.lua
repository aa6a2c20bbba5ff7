--[[ heartbeat: extends leases if their tokens hold them, and stores progress.

KEYS    leased:<queue>
ARGV[5] count       of tasks; then for each: id, token, lease_ms or '' for the length that the claim asked for, progress or ''
RETURNS {'extended', lease_until, 1 if cancellation is requested, else 0} | {'lease_lost', state} | {'unknown'}, for each task
MOVES   -
COST    O(n log leased)
]]
local HEARTBEAT_FIELDS = { F.cancel_requested, F.max_run_ms }
local tasks, answer = open_with_tasks(tonumber(ARGV[5]), 6, 4, HEARTBEAT_FIELDS)
if answer then return answer end

local replies = {}
for i, task in ipairs(tasks) do
  local at = 2 + 4 * i
  local reply = check_lease(task, ARGV[at + 1])
  if not reply then
    local lease_until = now + (tonumber(ARGV[at + 2]) or task[F.lease_ms])
    local max_run_ms = tonumber(task[F.max_run_ms]) or 0
    local leased_at = task[F.leased_at]
    if max_run_ms > 0 and leased_at + max_run_ms < lease_until then
      lease_until = math.min(lease_until, (lease_end(task, leased_at + max_run_ms, leased_at)))
    end
    local command = { 'HSET', task.key, F.lease_until, lease_until, F.lease_set_at, now }
    if ARGV[at + 3] ~= '' then set_field(command, F.progress, ARGV[at + 3]) end
    write_task(task, command)
    zset_add(base .. 'leased:' .. task[F.queue], lease_until, task.id)
    due_no_later(task[F.queue], lease_until)
    reply = { 'extended', lease_until, task[F.cancel_requested] and 1 or 0 }
  end
  replies[i] = reply
end
return commit(replies)
