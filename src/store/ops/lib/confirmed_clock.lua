-- confirmed_clock: reads the clock in a script that only reads, and refuses the call while the clock is not confirmed. Nothing
-- is judged by such a clock.
--
-- The server then touches the clock and repeats the call.
--
-- defines: -
-- needs: read_prelude, clock
read_clock()
if not is_confirmed and not accepts_unconfirmed then return redis.error_reply('CLOCK the clock of the shard is not confirmed') end
