-- prelude: the prelude of every script that writes: its arguments, and the fields of `callers` that `open_call` reads.
--
-- KEYS[1] callers    fields: <caller> -> its last call; shard, queue:<queue> -> records; layout.rs has the bytes of these.
--                    clock -> see clock.lua; events -> see events.lua. Carries the hash tag
-- KEYS[2] absent_guard:<scope>  never exists; its scope, a database and a data set, is the end of the channels' names
-- ARGV[1] base       prefix of every key of the shard, with the same hash tag
-- ARGV[2] caller     id of the caller
-- ARGV[3] sequence   number of this call; a repeated call gets the reply of the first
-- ARGV[4] offset_ms  '' in production; tests shift the clock by it. Behind a '*', every key is touched before the first write
--
-- defines: call, callers, base, caller, sequence, offset_ms, touches_keys; shard_raw, events_raw, clock_record, counters,
--   counted_at, accepts_unconfirmed, last_reply (see open_call); callers_command, with which commit writes fields of `callers`
-- keys: callers
local call, ARGV = redis.call, ARGV
local callers, base, caller, sequence = KEYS[1], ARGV[1], ARGV[2], tonumber(ARGV[3])
local offset_ms, touches_keys = ARGV[4], false
if offset_ms ~= '' then
  offset_ms = string.match(offset_ms, '[^*]*$')
  touches_keys = offset_ms ~= ARGV[4]
end
-- Fields of `callers` as open_call reads them, and parts of the last call.
local clock_record, shard_raw, events_raw, last_reply
local counters, counted_at = '', 0
local accepts_unconfirmed = false
-- Fields of `callers` that the call writes. A list of nils has room.
local callers_command = { 'HSET', callers, caller, false, nil, nil, nil, nil, nil, nil }
