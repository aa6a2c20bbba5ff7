--[[ delete: deletes tasks: an ended one at a client's request, those past their retention, those of a purge. A task that waits
past its time of expiry has ended.

KEYS    retention
ARGV[5] retention   '1': only tasks whose retention has elapsed; 'least': only those kept for `least_ms`
ARGV[6] least_ms    how long every ended task is kept
ARGV[7] states      number, then the states from which a task may be deleted; never leased
        count       of tasks; then the ids
RETURNS {'deleted'} | {'not_allowed', state} | {'unknown'}, for each task
MOVES   every state but leased -> -
COST    O(n log queue)
]]
local answer = open_call()
if answer then return answer end

local needs_retention_elapsed, is_allowed = ARGV[5] == '1', {}
local ended_until = ARGV[5] == 'least' and now - tonumber(ARGV[6])
local at = 7 + tonumber(ARGV[7])
for i = 8, at do is_allowed[ARGV[i]] = true end
is_allowed.leased = nil

local function delete(task)
  if not task then return { 'unknown' } end
  local state = task[F.state]
  if not is_allowed[state] and not (is_allowed.expired and has_expired(task)) then return { 'not_allowed', state } end
  if needs_retention_elapsed then
    local delete_at = call('ZSCORE', base .. 'retention', task.id)
    if not delete_at or tonumber(delete_at) > now then return { 'not_allowed', state } end
  end
  if ended_until then
    if task[F.finished_at] == 0 or task[F.finished_at] > ended_until then return { 'not_allowed', state } end
  end
  delete_task(task)
  return { 'deleted' }
end

local replies = {}
for i = 1, tonumber(ARGV[at + 1]) do replies[i] = delete(load_task(ARGV[at + 1 + i], WAITING_FIELDS)) end
return commit(replies)
