--[[ promote: makes scheduled tasks of one queue ready once their time has come, behind the tasks that are ready.

KEYS    scheduled:<queue>, leased:<queue>, due
ARGV[5] queue       name
ARGV[6] limit       maximum of tasks
RETURNS entries promoted; if `limit`, there may be more
MOVES   scheduled -> ready
COST    O(n log queue)
]]
if last_reply then return last_reply end

local PROMOTE_FIELDS = { F.state, F.slot, F.priority }
local queue, limit = ARGV[5], tonumber(ARGV[6])
local scheduled, leased, due = base .. 'scheduled:' .. queue, base .. 'leased:' .. queue, base .. 'due'
-- Reads one more than the limit: its time is the queue's next.
local page = call('ZRANGE', scheduled, 0, limit, 'WITHSCORES')
touched[scheduled], touched[due] = true, true
local promoted, next_time = 0, nil
for i = 1, #page, 2 do
  local run_at = tonumber(page[i + 1])
  if run_at > now or promoted == limit then
    next_time = run_at
    break
  end
  promoted = promoted + 1
  local task = load_task(page[i], PROMOTE_FIELDS)
  zset_remove(scheduled, page[i])
  -- A stale entry of a task in another state must not take it back.
  if task and task[F.state] == 'scheduled' then
    task[F.queue] = queue
    local seq = next_counter('seq')
    write('HSET', task.key, F.state, 'ready', F.seq, seq, F.ready_at, now)
    enqueue(queue, task[F.priority], task[F.slot], seq, task.id)
    transition(task, 'scheduled', 'ready')
  end
end
-- The queue's score in `due` becomes the time of its first remaining task.
local first_lease = call('ZRANGE', leased, 0, 0, 'WITHSCORES')[2]
if first_lease and (not next_time or tonumber(first_lease) < next_time) then next_time = tonumber(first_lease) end
local score = call('ZSCORE', due, queue)
if next_time then
  if not score or tonumber(score) ~= next_time then zset_add(due, next_time, queue) end
elseif score then
  zset_remove(due, queue)
end
return commit(promoted)
