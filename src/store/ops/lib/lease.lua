-- lease: checks the lease of a task, and ends the task.
--
-- defines: check_lease, finish_task
-- needs: prelude, clock, transaction, dedupe
-- keys: ended:<queue>:<state>, retention

-- Returns nil if `token` holds the task's lease, else the reply. `verb` ends a lease: its repetition gets its first reply.
-- An expired lease is lost, whether or not upkeep has ended it.
local function check_lease(task, token, verb)
  if not task then return { 'unknown' } end
  if task[F.state] == 'leased' and task[F.lease_token] == token and tonumber(task[F.lease_until]) > now then return nil end
  if verb then
    local ended = call('HMGET', task.key, F.ended_lease_token, F.ended_lease_reply)
    if ended[1] == token then
      local ended_by, state, run_at = string.match(ended[2], '^(%a+) (%a+) (%d*)$')
      if ended_by == verb then return { 'repeated', state, run_at } end
    end
  end
  return { 'lease_lost', task[F.state] }
end

-- Ends the task in `state`, which the script writes. `default_retain_ms` is how long a task without its own is kept.
local delete_at = {}
local function finish_task(task, state, default_retain_ms)
  zset_add(base .. 'ended:' .. task[F.queue] .. ':' .. state, now_digits, task.id)
  local retain_ms = task[F.retain_ms]
  if not retain_ms or retain_ms == '' then retain_ms = default_retain_ms end
  delete_at[retain_ms] = delete_at[retain_ms] or digits(now + tonumber(retain_ms))
  zset_add(base .. 'retention', delete_at[retain_ms], task.id)
  free_dedupe(task)
  if task[F.completion_watched] then notify('ended ' .. task.id) end
end
