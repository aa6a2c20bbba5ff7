--[[ run_now: makes scheduled tasks ready before their time, behind the tasks that are ready. A task that has expired ends as
expired. A task that waits for the end of another waits on, without a time of its own.

KEYS    scheduled:<queue>
ARGV[5] retain_ms   how long an expired task without its own retention is kept
ARGV[6] count       of tasks; then the ids
RETURNS {'run'} | {'waits'} | {'already_ready'} | {'expired'} | {'not_waiting', state} | {'unknown'}, for each task
MOVES   scheduled -> ready | expired, ready -> expired
COST    O(n log queue)
]]
local answer = open_call()
if answer then return answer end

local function run_now(task)
  if not task then return { 'unknown' } end
  local state, queue = task[F.state], task[F.queue]
  if has_expired(task) then
    expire(task, ARGV[5])
    return { 'expired' }
  end
  if state == 'ready' then return { 'already_ready' } end
  if state ~= 'scheduled' then return { 'not_waiting', state } end
  if (task[F.dedupe_digest] or '') ~= '' and (call('HGET', task.key, F.predecessor) or '') ~= '' then
    write('HSET', task.key, F.start_at, '')
    return { 'waits' }
  end
  local seq = next_seq(task)
  zset_remove(base .. 'scheduled:' .. queue, task.id)
  write_task(task, { 'HSET', task.key, F.state, 'ready', F.seq, seq, F.ready_at, now, F.run_at, now })
  enqueue(task, seq)
  transition(task, state, 'ready')
  return { 'run' }
end

local replies = {}
for i = 1, tonumber(ARGV[6]) do replies[i] = run_now(load_task(ARGV[6 + i], WAITING_FIELDS)) end
return commit(replies)
