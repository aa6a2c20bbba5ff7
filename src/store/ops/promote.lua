--[[ promote: makes scheduled tasks of one queue ready once their time has come, behind the tasks that are ready. A task that
has expired by then ends.

KEYS    scheduled:<queue>, leased:<queue>
ARGV[5] queue       name
ARGV[6] limit       maximum of tasks
ARGV[7] retain_ms   how long an expired task without its own retention is kept
RETURNS {entries taken, tasks expired of these}; if `limit` were taken, there may be more
MOVES   scheduled -> ready | expired
COST    O(n log queue)
]]
local answer = open_call({ ARGV[5] })
if answer then return answer end

local queue, limit = ARGV[5], tonumber(ARGV[6])
local scheduled, leased = base .. 'scheduled:' .. queue, base .. 'leased:' .. queue
-- Reads one more than the limit: its time is the queue's next.
local page = call('ZRANGE', scheduled, 0, limit, 'WITHSCORES')
local taken, expired, next_time = 0, 0, nil
for i = 1, #page, 2 do
  local run_at = tonumber(page[i + 1])
  if run_at > now or taken == limit then
    next_time = run_at
    break
  end
  taken = taken + 1
  local task = load_task(page[i], WAITING_FIELDS)
  zset_remove(scheduled, page[i])
  -- A stale entry of a task in another state must not take it back.
  if task and task[F.state] == 'scheduled' and has_expired(task) then
    expire(task, ARGV[7])
    expired = expired + 1
  elseif task and task[F.state] == 'scheduled' then
    task[F.queue] = queue
    local seq = next_seq(task)
    write_task(task, { 'HSET', task.key, F.state, 'ready', F.seq, seq, F.ready_at, now })
    enqueue(task, seq)
    transition(task, 'scheduled', 'ready')
  end
end
-- The queue's time in `due` becomes that of its first remaining task.
local first_lease = call('ZRANGE', leased, 0, 0, 'WITHSCORES')[2]
if first_lease and (not next_time or tonumber(first_lease) < next_time) then next_time = tonumber(first_lease) end
set_due(queue, next_time)
return commit({ taken, expired })
