-- end_lease: the part that every end of a lease has in common.
--
-- defines: end_lease
-- needs: clock, transaction, stats_counters
-- keys: leased:<queue>, claim:<digest>
local OUTCOMES = { complete = 1, fail = 2, release = 3, revoke = 3, expire = 4 }
local lease_ends = {}
new_counters.lease_ends = lease_ends

-- Ends the task's lease; the script writes the state. An expired lease ended at its time, not when upkeep found it.
-- Returns fields and values to write: by them a repetition of `verb` with this token gets the same reply.
local function end_lease(task, verb, state, run_at)
  local queue = task[F.queue]
  local ended_at = verb == 'expire' and task[F.lease_until] or now
  local ends, held_ms = lease_ends[queue], ended_at - task[F.leased_at]
  if not ends then
    ends = { 0, 0, 0, 0, 0, 0 }
    lease_ends[queue] = ends
  end
  local outcome = OUTCOMES[verb]
  ends[outcome] = ends[outcome] + 1
  if held_ms > 0 then ends[5] = ends[5] + held_ms end
  if state == 'ready' or state == 'scheduled' then ends[6] = ends[6] + 1 end
  zset_remove(base .. 'leased:' .. queue, task.id)
  if task[F.has_claim] == 1 then
    write_last('SREM', base .. 'claim:' .. string.sub(task[F.claim_digest] or '', 1, 16), task.id)
  end
  return F.ended_lease_token, task[F.lease_token], F.ended_by, verb, F.ended_state, state, F.ended_run_at, run_at or 0
end
