//! Release: leased tasks are handed back uncounted.

use super::{LeaseEnd, LeaseRef};
use crate::domain::limits;
use crate::store::error::Result;
use crate::store::redis::reply::ReplyReader;
use crate::store::redis::script::{Script, script};
use crate::store::shard::{Caller, Shard};

pub(super) static SCRIPT: Script = script!(write "release", ["events", "stats_format", "stats_counters", "wheel", "waiting", "dedupe", "lease", "end_lease"]);

/// A task handed back.
#[derive(Clone, Debug)]
pub struct Release {
    /// Which, and the proof.
    pub held: LeaseRef,
    /// When it can be claimed again, in ms from now.
    pub delay_ms: i64,
}

/// Ends the tasks' leases; each waits again, at its own place where it has no delay.
pub async fn release(shard: &Shard, caller: &mut Caller, releases: &[Release]) -> Result<Vec<LeaseEnd>> {
    let mut call = shard.call(&SCRIPT, caller);
    call.push_int(limits::RETAIN_OTHER_MS).push_usize(releases.len());
    for Release { held, delay_ms } in releases {
        call.push(held.id.as_bytes()).push(held.token_bytes()).push_int(*delay_ms);
    }
    let outcomes = super::parse_items(call.send().await?, releases.len(), parse_item)?;
    let transitions = shard.transitions();
    transitions.record_lease_ends(&transitions.released, &outcomes);
    Ok(outcomes)
}

/// Reads the answer to one item.
pub(in crate::store) fn parse_item(item: ReplyReader) -> Result<LeaseEnd> {
    super::parse_lease_end(&SCRIPT, "released", item)
}
