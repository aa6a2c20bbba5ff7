-- read_prelude: the prelude of every script that only reads.
--
-- KEYS[1] callers    declared because it carries the shard's hash tag
-- ARGV[1] base       prefix of every key of the shard, with the same hash tag
-- ARGV[2] offset_ms  '' in production; tests shift the clock by it
--
-- defines: call, callers, base, offset_ms
-- keys: callers
local call, callers, base, offset_ms = redis.call, KEYS[1], ARGV[1], ARGV[2]
