//! Releases leased tasks without counting an attempt.

use super::{LeaseEnd, LeaseRef};
use crate::domain::limits;
use crate::store::error::Result;
use crate::store::redis::reply::ReplyReader;
use crate::store::redis::script::{Script, script};
use crate::store::shard::{Caller, Shard};

pub(super) static SCRIPT: Script = script!(write "release", ["events", "stats_format", "stats_counters", "wheel", "waiting", "dedupe", "free_dedupe", "finish_task", "lease", "end_lease"]);

/// A task to release.
#[derive(Clone, Debug)]
pub struct Release {
    /// The task and its token.
    pub lease_ref: LeaseRef,
    /// When the task can be claimed again, in ms from now.
    pub delay_ms: i64,
}

/// Ends the tasks' leases. A task without a delay keeps its position; others wait for their delay.
pub async fn release(shard: &Shard, caller: &mut Caller, releases: &[Release]) -> Result<Vec<LeaseEnd>> {
    let mut call = shard.call(&SCRIPT, caller);
    call.push_int(limits::RETAIN_OTHER_MS).push_usize(releases.len());
    for Release { lease_ref, delay_ms } in releases {
        call.push(lease_ref.id.as_bytes()).push(lease_ref.token_bytes()).push_int(*delay_ms);
    }
    let outcomes = super::parse_items(call.send().await?, releases.len(), parse_item)?;
    let transitions = shard.transitions();
    super::count_lease_ends(transitions, &transitions.released, &outcomes);
    Ok(outcomes)
}

/// Reads the reply to one item.
pub(in crate::store) fn parse_item(item: ReplyReader) -> Result<LeaseEnd> {
    super::parse_lease_end(&SCRIPT, "released", None, item)
}
