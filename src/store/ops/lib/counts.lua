-- counts: the places of the counts in the records of queues and of the shard, by their names.
--
-- defines: COUNTS
-- needs: -
local COUNTS = { ready = L.queue.ready, scheduled = L.queue.scheduled, leased = L.queue.leased, completed = L.queue.completed,
  dead = L.queue.dead, cancelled = L.queue.cancelled, expired = L.queue.expired, submitted = L.queue.submitted,
  deleted = L.queue.deleted }
