//! Tidy: pumps that are gone leave the record of their last call behind.

use crate::store::error::Result;
use crate::store::redis::reply;
use crate::store::redis::script::{Script, script};
use crate::store::shard::{Caller, Shard};

pub(super) static SCRIPT: Script = script!(write "prune_callers", []);

/// A pump repeats a call within seconds; after an hour nobody asks.
const CALLER_IDLE_MS: i64 = 3_600_000;

/// Forgets pumps that have been silent for an hour. `cursor`: "0", then what the call before answered, until "0".
pub async fn prune_callers(shard: &Shard, caller: &mut Caller, cursor: &str) -> Result<String> {
    let mut call = shard.call(&SCRIPT, caller);
    call.push_int(CALLER_IDLE_MS).push(cursor);
    reply::text(call.send().await?)
}
