-- complete_any: completes any task, or answers a report that does not hold its lease.
--
-- Reads ARGV[5]: retain_ms of completed tasks.
--
-- defines: the end of define_complete(), which returns a function that completes a task and returns the reply
-- needs: clock, transaction, events, transition, task, lease, end_lease, finish_task
local FIELDS_OF_END = { F.claim_digest, F.dedupe_digest, F.completion_watched, F.retain_ms }

return function(id, token, result)
  local task = load_task(id, FIELDS_OF_END)
  local reply = check_lease(task, token, 'complete')
  -- A dropped result is one byte, which is no JSON.
  if reply and reply[1] == 'repeated' and call('HSTRLEN', task.key, F.result) == 1 and call('HGET', task.key, F.result) == '\0' then
    reply[4] = 1
  end
  if reply then return reply end
  local command = { 'HSET', task.key, F.state, 'completed' }
  end_lease(task, command, 'complete', 'completed')
  if result ~= '' then set_field(command, F.result, result) end
  writes[#writes + 1] = command
  finish_task(task, 'completed', ARGV[5])
  transition(task, 'leased', 'completed')
  return { 'completed' }
end
