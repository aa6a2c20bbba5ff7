-- confirmed_clock: refuses a call while the shard's clock is not confirmed. Nothing is judged or written by such a clock.
--
-- The server then touches the clock and repeats the call.
--
-- defines: -
-- needs: prelude or read_prelude, clock
if not is_confirmed and not accepts_unconfirmed then return redis.error_reply('CLOCK the clock of the shard is not confirmed') end
