-- prelude: the prelude of every script that writes: its arguments, and the fields of `callers` that `open_call` reads.
--
-- KEYS[1] callers    fields: <caller> -> its last call; <caller>:counters -> its counters; shard, queue:<queue> -> records;
--                    layout.rs has the bytes of these. clock -> see clock.lua; events -> see events.lua. Carries the hash tag
-- KEYS[2] absent_guard:<scope>  never exists; its scope, a database and a data set, is the end of the channels' names
-- ARGV[1] base       prefix of every key of the shard, with the same hash tag
-- ARGV[2] caller     id of the caller
-- ARGV[3] sequence   number of this call; a repeated call gets the reply of the first
-- ARGV[4] offset_ms  '' in production; tests shift the clock by it. Behind a '*', every key is touched before the first write
--
-- defines: call, callers, base, caller, sequence, offset_ms, touches_keys; call_fields, call_values, clock_record, after_open,
--   accepts_unconfirmed, last_reply (see open_call); callers_command, which commit ends with
-- keys: callers
local call, ARGV = redis.call, ARGV
local callers, base, caller, sequence = KEYS[1], ARGV[1], ARGV[2], tonumber(ARGV[3])
local offset_ms = string.match(ARGV[4], '[^*]*$')
local touches_keys = offset_ms ~= ARGV[4]
-- Fields of `callers` that open_call reads, to which fragments add theirs; then their values.
local call_fields, call_values = { caller, 'clock', 'shard' }, nil
-- Fields of `callers` that the call writes.
local callers_command = { 'HSET', callers, caller, false }
local clock_record, last_reply, after_open
local accepts_unconfirmed = false
