-- read_prelude: the prelude of every script that only reads.
--
-- KEYS[1] callers    clock -> see clock.lua; carries the shard's hash tag
-- ARGV[1] base       prefix of every key of the shard, with the same hash tag
-- ARGV[2] offset_ms  '' in production; tests shift the clock by it. Behind a '?', an unconfirmed clock is accepted
--
-- defines: call, callers, base, offset_ms, clock_record, accepts_unconfirmed; call_values, which is nil
-- keys: callers
local call, callers, base, offset_ms = redis.call, KEYS[1], ARGV[1], string.match(ARGV[2], '[^?]*$')
local call_values
local clock_record, accepts_unconfirmed = call('HGET', callers, 'clock'), offset_ms ~= ARGV[2]
