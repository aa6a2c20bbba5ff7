--[[ retry: makes dead, cancelled and expired tasks ready again, with fresh attempts and a fresh time of expiry.

KEYS    ended:<queue>:<state>, retention
ARGV[5] count       of tasks; then the ids
RETURNS {'retried'} | {'not_retryable', state} | {'dedupe_key_taken', state} | {'unknown'}, for each task
MOVES   dead -> ready, cancelled -> ready, expired -> ready
COST    O(n log queue)
]]
if last_reply then return last_reply end

local RETRYABLE = { dead = true, cancelled = true, expired = true }
local RETRY_FIELDS = { F.state, F.queue, F.slot, F.priority, F.expires_in_ms, F.dedupe_digest }

local function retry_task(task)
  if not task then return { 'unknown' } end
  local state, queue, digest = task[F.state], task[F.queue], task[F.dedupe_digest]
  if not RETRYABLE[state] then return { 'not_retryable', state } end
  if digest and digest ~= '' then
    local key, holder, until_ms = read_dedupe(queue, digest)
    if holder and (not until_ms or until_ms > now) then return { 'dedupe_key_taken', state } end
    write('SET', key, task.id)
  end
  local seq = next_counter('seq')
  local command = { 'HSET', task.key, F.state, 'ready', F.seq, seq, F.ready_at, now, F.attempts, 0, F.run_at, '', F.dedupe_until, '' }
  local expires_in_ms = task[F.expires_in_ms]
  if expires_in_ms and expires_in_ms ~= '' then
    task[F.expires_at] = now + tonumber(expires_in_ms)
    set_field(command, F.expires_at, task[F.expires_at])
    index_expiration(task)
  end
  writes[#writes + 1] = command
  write_last('HDEL', task.key, F.cancel_requested, F.finished_at, F.completion_watched)
  zset_remove(base .. 'ended:' .. queue .. ':' .. state, task.id)
  zset_remove(base .. 'retention', task.id)
  enqueue(queue, task[F.priority], task[F.slot], seq, task.id)
  transition(task, state, 'ready')
  return { 'retried' }
end

local replies = {}
for i = 1, tonumber(ARGV[5]) do replies[i] = retry_task(load_task(ARGV[5 + i], RETRY_FIELDS)) end
return commit(replies)
