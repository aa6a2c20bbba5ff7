--[[ cancel: ends waiting tasks, and marks leased tasks so that their workers see the request. A task that has expired ends
as expired.

ARGV[5] retain_ms   how long a cancelled or expired task without its own retention is kept
ARGV[6] count       of tasks; then the ids
RETURNS {'cancelled'} | {'already_cancelled'} | {'requested'} | {'expired'} | {'ended', state} | {'unknown'}, for
        each task
MOVES   ready -> cancelled | expired, scheduled -> cancelled | expired
COST    O(n log queue)
]]
local answer = open_call()
if answer then return answer end

local function cancel(task)
  if not task then return { 'unknown' } end
  local state = task[F.state]
  if state == 'cancelled' then return { 'already_cancelled' } end
  if state == 'leased' then
    write('HSET', task.key, F.cancel_requested, '1')
    return { 'requested' }
  end
  if has_expired(task) then
    expire(task, ARGV[5])
    return { 'expired' }
  end
  if not stop_waiting(task) then return { 'ended', state } end
  begin_end(task, 'cancelled')
  write_task(task, { 'HSET', task.key, F.state, 'cancelled', F.finished_at, task.ended_at, F.end_seq, task.end_seq })
  finish_task(task, 'cancelled', ARGV[5])
  transition(task, state, 'cancelled')
  return { 'cancelled' }
end

local replies = {}
for i = 1, tonumber(ARGV[6]) do replies[i] = cancel(load_task(ARGV[6 + i], WAITING_FIELDS)) end
return commit(replies)
