-- write_task: writes fields of a task, those in its records included.
--
-- defines: write_task
-- needs: transaction, task

-- Changes the task's fields, and stages the write: `command` is an HSET of fields by name.
local function write_task(task, command)
  local staged, writes_placement, writes_lease, writes_ending = { 'HSET', task.key }, false, false, false
  for i = 3, #command, 2 do
    local name = command[i]
    local record, separator = string.byte(name, 1, 2)
    if separator ~= 58 then
      set_field(staged, name, command[i + 1])
    else
      -- As in task: 112 begins the names of placement, 108 those of lease.
      if record == 112 then
        unpack_placement(task)
        writes_placement = true
      elseif record == 108 then
        writes_lease = true
      else
        unpack_ending(task)
        writes_ending = true
      end
      task[name] = command[i + 1]
    end
  end
  if writes_placement then
    set_field(staged, F.placement, struct.pack(L.placement.format, L.placement.version, task[F.priority], task[F.slot], task[F.max_attempts],
      task[F.attempts], task[F.options], task[F.created_at], task[F.ready_at], task[F.seq]) .. task[F.key_digest] .. task[F.queue])
  end
  if writes_lease then
    set_field(staged, F.lease, struct.pack(L.lease.format, L.lease.version, task[F.lease_token], task[F.lease_until], task[F.leased_at],
      task[F.lease_set_at] or 0, task[F.lease_ms], task[F.acquired], task[F.has_claim] or 0) .. task[F.worker])
  end
  if writes_ending then
    local finished_at = task[F.finished_at] or 0
    set_field(staged, F.ending, struct.pack(L.ending.format, L.ending.version, number_of(task[F.ended_by], L.ending.words_ended_by),
      number_of(task[F.ended_state], L.ending.words_ended_state), task[F.ended_run_at] or 0, finished_at, task[F.end_seq] or 0)
      .. (finished_at == 0 and task[F.ended_lease_token] or ''))
  end
  writes[#writes + 1] = staged
end
