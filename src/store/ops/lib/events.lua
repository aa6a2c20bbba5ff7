-- events: publishes the transitions of tasks on channel `events` while a server subscribes to them.
--
-- The field `events` of `callers` holds the end of the current uninterrupted period of publishing, and the period's id. The end
-- is in seconds of the shard's clock without the offset of tests, which the servers that extend it do not know.
--
-- defines: emit_event
-- needs: prelude, clock, transaction, open_call, which leaves `events_raw` nil while nothing is published
-- sets: stage_events
-- keys: callers
local events

-- A new task comes from '', a deleted one goes to 'deleted'.
local function emit_event(id, queue, from, to)
  if not events_raw then return end
  if not events then
    events = {}
    -- At most 100 events in a message.
    stage_events = function()
      for from = 1, #events, 100 do
        notify(cmsgpack.pack({ now, unpack(events, from, math.min(from + 99, #events)) }), 'events')
      end
    end
  end
  events[#events + 1] = { id, queue, from, to }
end
