-- events: publishes the transitions of tasks on channel `events` while a server subscribes to them.
--
-- The field `events` of `callers` holds the end of the current uninterrupted period of publishing, and the period's id. The end
-- is in seconds of the shard's clock without the offset of tests, which the servers that extend it do not know.
--
-- defines: emit_event, transition, events (nil while nothing is published), events_enabled
-- needs: prelude, clock, transaction, records
-- registers: after_open, which reads the field; after_commit, which stages the messages
-- keys: callers
local events, events_enabled
local events_place = #call_fields + 1
call_fields[events_place] = 'events'

after_open = function()
  events_enabled = call_values[events_place]
  if not events_enabled or (tonumber(string.match(events_enabled, '^%d+')) or 0) <= shard_ms / 1000 then return end
  events = {}
  -- At most 100 events in a message.
  after_commit = function()
    for from = 1, #events, 100 do
      local n = #messages
      messages[n + 1] = 'events'
      messages[n + 2] = cmsgpack.pack({ now, unpack(events, from, math.min(from + 99, #events)) })
    end
  end
end

-- A new task comes from '', a deleted one goes to 'deleted'.
local function emit_event(id, queue, from, to)
  if events then events[#events + 1] = { id, queue, from, to } end
end

-- Counts and publishes a transition. Scripts without this fragment change no state.
local function transition(task, from, to)
  local queue = task[F.queue]
  count(queue, from, -1)
  count(queue, to, 1)
  emit_event(task.id, queue, from, to)
end
