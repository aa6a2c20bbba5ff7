-- read_prelude: the prelude of every script that only reads.
--
-- KEYS[1] callers    clock -> see clock.lua; shard -> its record; carries the shard's hash tag
-- ARGV[1] base       prefix of every key of the shard, with the same hash tag
-- ARGV[2] offset_ms  '' in production; tests shift the clock by it. Behind a '?', an unconfirmed clock is accepted
--
-- defines: call, callers, base, offset_ms, clock_record, shard_raw, accepts_unconfirmed
-- keys: callers
local call, callers, base, offset_ms = redis.call, KEYS[1], ARGV[1], string.match(ARGV[2], '[^?]*$')
local accepts_unconfirmed = offset_ms ~= ARGV[2]
local clock_record, shard_raw = unpack(call('HMGET', callers, 'clock', 'shard'))
