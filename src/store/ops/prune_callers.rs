//! Drops the records of callers that no longer call.

use crate::store::error::Result;
use crate::store::redis::reply;
use crate::store::redis::script::{Script, script};
use crate::store::shard::{Caller, Shard};

pub(super) static SCRIPT: Script = script!(write "prune_callers", []);

/// A caller repeats a call within seconds; after an hour its record is useless.
const CALLER_IDLE_MS: i64 = 3_600_000;

/// Drops one page of callers that have been idle for an hour. Returns the cursor of the next call. `cursor` is "0" at first;
/// a returned "0" ends the pass.
pub async fn prune_callers(shard: &Shard, caller: &mut Caller, cursor: &str) -> Result<String> {
    let mut call = shard.call(&SCRIPT, caller);
    call.push_int(CALLER_IDLE_MS).push(cursor);
    reply::text(call.send().await?)
}
