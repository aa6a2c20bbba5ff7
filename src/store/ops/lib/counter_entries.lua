-- counter_entries: the bytes of the counters that a caller has: entries of the number of the kind (layout.rs), bytes of the
-- queue, the queue, bytes of the rest, the rest. That is a number for submitted, numbers for lease ends, MessagePack for waits.
--
-- defines: BUCKET_MS, ENTRY, LEASE_ENDS
-- needs: -

-- The time that shares counters.
local BUCKET_MS = 5000
local ENTRY, LEASE_ENDS = '>BBc0I2', '>I4I4I4I4I6I4'
