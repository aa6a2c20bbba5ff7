-- open_call: opens a call. It reads all that the call needs to know of its caller, its shard and some queues in one command,
-- and detects repeated and overtaken calls. Reads before it are harmless, and wasted only if the call is a repetition.
--
-- The calls of one caller never overlap, so its last call is enough to remember.
--
-- defines: open_call
-- needs: prelude, clock, records, transaction
-- keys: callers

-- Opens the call, with the records of `queues`, which may be nil. Returns nil if the call goes on, else what the script
-- returns: an error, or the reply to the first call, which is `last_reply` then. While the shard's clock is not confirmed, it
-- returns an error: nothing is judged or written by such a clock. The server then touches the clock and repeats the call.
local function open_call(queues)
  local values, queue_fields
  if queues then
    queue_fields = {}
    for i = 1, #queues do queue_fields[i] = 'queue:' .. queues[i] end
    values = call('HMGET', callers, caller, 'clock', 'shard', 'events', unpack(queue_fields))
  else
    values = call('HMGET', callers, caller, 'clock', 'shard', 'events')
  end
  local last, reply
  last, clock_record, shard_raw, events_raw = unpack(values, 1, 4)
  read_clock()
  if events_raw and (tonumber(string.match(events_raw, '^%d+')) or 0) <= shard_ms / 1000 then events_raw = nil end
  if last then
    local version, last_sequence, _, time, bytes, behind = struct.unpack(L.call.format, last)
    if version ~= L.call.version then error('UNREADABLE the record of the caller') end
    counters, counted_at = string.sub(last, behind, behind + bytes - 1), time
    -- A delayed delivery of an earlier call must not run after a later call.
    if last_sequence > sequence then return redis.error_reply('OVERTAKEN a later call of this caller has run') end
    if last_sequence == sequence then reply = string.sub(last, behind + bytes) end
  end
  if not is_confirmed and not accepts_unconfirmed then return redis.error_reply('CLOCK the clock of the shard is not confirmed') end
  last_reply = reply
  if reply then return reply end
  if queues then
    for i = 1, #queues do raw_records[queues[i]] = values[4 + i] end
  end
end
