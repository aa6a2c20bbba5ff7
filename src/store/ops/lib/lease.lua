-- lease: checks the leases of tasks.
--
-- defines: check_lease
-- needs: prelude, clock, task, outages

-- Returns nil if `token` holds the task's lease, else the reply. `verb` ends a lease: its repetition gets its first reply.
-- An expired lease is lost, whether or not upkeep has ended it.
local function check_lease(task, token, verb)
  if not task then return { 'unknown' } end
  if task[F.state] == 'leased' and task[F.lease_token] == token then
    local lease_until = task[F.lease_until]
    if lease_until > now or lease_end(task, lease_until) > now then return nil end
  end
  if verb and task[F.ended_lease_token] == token and task[F.ended_by] == verb then
    local run_at = task[F.ended_run_at]
    return { 'repeated', task[F.ended_state], run_at > 0 and run_at or '' }
  end
  return { 'lease_lost', task[F.state] }
end
