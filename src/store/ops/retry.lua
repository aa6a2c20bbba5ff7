--[[ retry: makes dead, cancelled and expired tasks ready again, with fresh attempts, fresh hand-outs and a fresh time of
expiry. Their errors are kept. A task that waits past its time of expiry has expired.

KEYS    scheduled:<queue>
ARGV[5] retain_ms   how long an expired task without its own retention is kept
ARGV[6] count       of tasks; then the ids
RETURNS {'retried'} | {'not_retryable', state} | {'dedupe_key_taken', state} | {'unknown'}, for each task; after these the
        number of tasks that it found expired, if any
MOVES   dead -> ready, cancelled -> ready, expired -> ready; ready -> expired, scheduled -> expired
COST    O(n log queue)
]]
local answer = open_call()
if answer then return answer end

local RETRYABLE = { dead = true, cancelled = true, expired = true }
local RETRY_FIELDS = { F.expires_in_ms, F.dedupe_digest }
for i, name in ipairs(HOLDER_FIELDS) do table.insert(RETRY_FIELDS, i, name) end

local function retry_task(task)
  if not task then return { 'unknown' } end
  local state, queue, digest = task[F.state], task[F.queue], task[F.dedupe_digest]
  local is_late = has_expired(task)
  if not RETRYABLE[state] and not is_late then return { 'not_retryable', state } end
  local expired_before = expired_holders
  if digest and digest ~= '' then
    local key, holder = find_holder(queue, digest, ARGV[5], task)
    if holder and holder ~= task then
      local expired = expired_holders - expired_before
      return { 'dedupe_key_taken', is_late and 'expired' or state, expired > 0 and expired or nil }
    end
    write('SET', key, task.id)
  end
  local expired = expired_holders - expired_before
  local was_ready = state == 'ready'
  if not is_late then
    unindex_end(task)
  else
    if state == 'scheduled' then zset_remove(base .. 'scheduled:' .. queue, task.id) end
    transition(task, state, 'expired')
    state, expired = 'expired', expired + 1
  end
  local old_seq, seq = task[F.seq], next_seq(task)
  local command = { 'HSET', task.key, F.state, 'ready', F.seq, seq, F.ready_at, now, F.attempts, 0,
    F.options, bit.bor(task[F.options], 1), F.finished_at, 0, F.end_seq, 0, F.run_at, '',
    F.dedupe_until, '', F.successor, '', F.predecessor, '', F.replaces, '', F.uncounted, task[F.acquired] }
  local expires_in_ms = task[F.expires_in_ms]
  if expires_in_ms and expires_in_ms ~= '' then
    task[F.expires_at] = now + tonumber(expires_in_ms)
    set_field(command, F.expires_at, task[F.expires_at])
    index_expiration(task)
  end
  write_task(task, command)
  write_last('HDEL', task.key, F.cancel_requested, F.completion_watched)
  if was_ready then
    requeue(task, old_seq, seq)
  else
    enqueue(task, seq)
  end
  transition(task, state, 'ready')
  return { 'retried', expired > 0 and expired or nil }
end

local replies = {}
for i = 1, tonumber(ARGV[6]) do replies[i] = retry_task(load_task(ARGV[6 + i], RETRY_FIELDS)) end
return commit(replies)
