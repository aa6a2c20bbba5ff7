-- lease: checks the leases of tasks.
--
-- defines: check_lease
-- needs: prelude, clock, outages

-- Returns nil if `token` holds the task's lease, else the reply. `verb` ends a lease: its repetition gets its first reply.
-- An expired lease is lost, whether or not upkeep has ended it.
local function check_lease(task, token, verb)
  if not task then return { 'unknown' } end
  if task[F.state] == 'leased' and task[F.lease_token] == token then
    -- Numbers with as many digits are in the order of their texts, which cost less to compare than to read.
    local lease_until = task[F.lease_until]
    if #lease_until == #now_digits and lease_until > now_digits then return nil end
    lease_until = tonumber(lease_until)
    if lease_until > now or lease_end(task, lease_until) > now then return nil end
  end
  if verb then
    local ended = call('HMGET', task.key, F.ended_lease_token, F.ended_lease_reply)
    if ended[1] == token then
      local ended_by, state, run_at = string.match(ended[2], '^(%a+) (%a+) (%d*)$')
      if ended_by == verb then return { 'repeated', state, run_at } end
    end
  end
  return { 'lease_lost', task[F.state] }
end
