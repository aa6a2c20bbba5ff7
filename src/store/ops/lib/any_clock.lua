-- any_clock: has the script run also while the shard's clock is not confirmed.
--
-- defines: -
-- needs: prelude
accepts_unconfirmed = true
