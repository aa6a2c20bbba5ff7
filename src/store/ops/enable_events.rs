//! Has scripts publish events for a while.

use crate::store::error::Result;
use crate::store::redis::reply;
use crate::store::redis::script::{Script, script};
use crate::store::shard::{Caller, Shard};

pub(super) static SCRIPT: Script = script!(write "enable_events", ["events"]);

/// Time for which scripts publish events after a call, in seconds of Redis' clock.
pub const EVENTS_TTL_S: u8 = 15;

/// Has the shard's scripts publish events for [`EVENTS_TTL_S`] from now. Returns the id of the current uninterrupted
/// period of publishing. If a subscriber knows another id, it may have missed events.
pub async fn enable_events(shard: &Shard, caller: &mut Caller) -> Result<String> {
    let mut call = shard.call(&SCRIPT, caller);
    call.push_int(EVENTS_TTL_S);
    reply::text(call.send().await?)
}
