-- prelude: the prelude of every script that writes. Reads ARGV[1..4] and detects repeated and overtaken calls.
--
-- The calls of one caller never overlap, so its last call is enough to remember. If the number of the last call is that
-- of this call, `last_reply` is the packed reply to return again.
--
-- KEYS[1] callers    <caller> -> '<number of its last call> <time in ms> <packed reply>'; clock -> see clock.lua; carries
--                    the shard's hash tag
-- KEYS[2] absent_guard:<scope>  never exists; its scope, a database and a data set, is the end of the channels' names
-- ARGV[1] base       prefix of every key of the shard, with the same hash tag
-- ARGV[2] caller     id of the caller
-- ARGV[3] sequence   number of this call; a repeated call gets the reply of the first
-- ARGV[4] offset_ms  '' in production; tests shift the clock by it
--
-- defines: call, callers, base, caller, sequence, offset_ms, last_reply, clock_record, accepts_unconfirmed
-- keys: callers
local call, ARGV = redis.call, ARGV
local callers, base, caller, sequence, offset_ms = KEYS[1], ARGV[1], ARGV[2], ARGV[3], ARGV[4]
local records = call('HMGET', callers, caller, 'clock')
local record, clock_record = records[1], records[2]
local accepts_unconfirmed, last_reply = false, nil
do
  if record then
    local last_sequence = string.match(record, '^%d+')
    if last_sequence == sequence then last_reply = string.match(record, '^%d+ %d+ (.*)$') end
    -- A delayed delivery of an earlier call must not run after a later call.
    local is_overtaken = #last_sequence > #sequence or (#last_sequence == #sequence and last_sequence > sequence)
    if is_overtaken then return redis.error_reply('OVERTAKEN a later call of this caller has run') end
  end
end
