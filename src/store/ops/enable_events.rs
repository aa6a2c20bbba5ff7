//! Listen: somebody wants to hear what becomes of tasks.

use crate::store::error::Result;
use crate::store::redis::reply;
use crate::store::redis::script::{Script, script};
use crate::store::shard::{Caller, Shard};

pub(super) static SCRIPT: Script = script!(write "enable_events", ["events"]);

/// For how long scripts report after a call, by Redis' clock, in s.
pub const EVENTS_TTL_S: u8 = 15;

/// Has scripts report what they change in the shard, for [`LISTENS_S`] from now. Returns the name of the time since which
/// they do so without a break: from whom it knew to be another, changes may have been kept.
pub async fn enable_events(shard: &Shard, caller: &mut Caller) -> Result<String> {
    let mut call = shard.call(&SCRIPT, caller);
    call.push_int(EVENTS_TTL_S);
    reply::text(call.send().await?)
}
