-- end_lease: the part that every end of a lease has in common.
--
-- defines: end_lease
-- needs: clock, transaction, task, lease_ends, finish_task
-- keys: leased:<queue>, claim:<digest>
local OUTCOMES = { complete = 1, fail = 2, release = 3, revoke = 3, expire = 4 }

-- Ends the task's lease; the script writes the state. An expired lease ended at its time, not when upkeep found it. Adds to
-- `command`, an HSET of the task, the record by which a repetition of `verb` with this token gets the same reply.
local function end_lease(task, command, verb, state, run_at)
  local queue, returns = task[F.queue], state == 'ready' or state == 'scheduled'
  local ended_at = verb == 'expire' and task[F.lease_until] or now
  count_lease_end(queue, OUTCOMES[verb], ended_at - task[F.leased_at], returns)
  zset_remove(base .. 'leased:' .. queue, task.id)
  if task[F.has_claim] == 1 then
    write_last('SREM', base .. 'claim:' .. string.sub(task[F.claim_digest] or '', 1, 16), task.id)
  end
  -- The next claim reads what is left of this lease.
  if returns then set_field(command, F.options, bit.bor(task[F.options], 1)) else begin_end(task, state) end
  set_field(command, F.ending, struct.pack(L.ending.format, L.ending.version, number_of(verb, L.ending.words_ended_by),
    number_of(state, L.ending.words_ended_state), run_at or 0, task.ended_at or 0, task.end_seq or 0)
    .. (returns and task[F.lease_token] or ''))
end
