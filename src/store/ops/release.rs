//! Ends leases without counting an attempt: for the worker that holds one, for a delivery without a client, or for a
//! client without the token.

use super::{LeaseEnd, LeaseRef, count_lease_end};
use crate::domain::limits;
use crate::store::error::Result;
use crate::store::opaque::encode_report_around_worker;
use crate::store::redis::reply::ReplyReader;
use crate::store::redis::script::{Script, script};
use crate::store::shard::{Caller, Shard};

pub(super) static SCRIPT: Script = script!(write "release", ["due", "task", "write_task", "events", "counts", "transition", "counter_entries", ("local function flush_counters(entries)" ["stats_format", "flush_counters"]), "stats_counters", "front", "piece_functions", ("local function use_pieces()" ["pieces"]), ("local function define_passes()" ["passes"]), "keyed_member", "wheel", "turn_back", "waiting", "dedupe", "free_dedupe", "replaced", "index_end", "finish_task", "outages", "lease", "lease_ends", "end_lease", "errors"]);

/// The error of a task that its worker releases after its last delivery: type and message.
const LAST_RELEASE: (&str, &str) =
    ("max_acquired", "the worker released the task, which had been delivered max_acquired times");

/// A task to release.
#[derive(Clone, Debug)]
pub struct Release {
    /// The task and its token.
    pub lease_ref: LeaseRef,
    /// The side that releases it.
    pub by: Releaser,
    /// When the task can be claimed again, in ms from now.
    pub delay_ms: i64,
}

/// The side that ends a lease without a result.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Releaser {
    /// The worker that holds it. Its slot has had its turn, and the delivery counts for `max_acquired`.
    Worker,
    /// The server, because the client of the claim has gone. The slot gets its turn back; the delivery does not count.
    Undelivered,
    /// A client without the token. The slot has had its turn, and the task does not end.
    Client {
        /// The number of the delivery whose lease to end; `None`: any.
        acquired: Option<i64>,
    },
}

/// Ends the tasks' leases. Each task keeps its position in its slot, waits for its delay, or ends.
pub async fn release(shard: &Shard, caller: &mut Caller, releases: &[Release]) -> Result<Vec<LeaseEnd>> {
    let (kind, message) = LAST_RELEASE;
    let (report_before, report_after) = encode_report_around_worker(kind, message)?;
    let mut call = shard.call(&SCRIPT, caller);
    call.push_int(limits::RETAIN_DEAD_MS)
        .push_int(limits::RETAIN_OTHER_MS)
        .push_int(limits::MAX_ERRORS)
        .push_usize(limits::MAX_ERRORS_BYTES)
        .push_int(limits::MAX_ACQUIRED.default)
        .push(report_before)
        .push(report_after)
        .push_usize(releases.len());
    for Release { lease_ref, by, delay_ms } in releases {
        call.push(lease_ref.id.as_bytes());
        match by {
            Releaser::Worker => call.push("worker").push(lease_ref.token_bytes()),
            Releaser::Undelivered => call.push("undelivered").push(lease_ref.token_bytes()),
            Releaser::Client { acquired } => {
                call.push("client").push(acquired.map(|number| number.to_string()).unwrap_or_default())
            }
        };
        call.push_int(*delay_ms);
    }
    let outcomes = super::parse_items(call.send().await?, releases.len(), parse_item)?;
    let transitions = shard.transitions();
    for (Release { by, .. }, outcome) in releases.iter().zip(&outcomes) {
        let counter = match by {
            Releaser::Worker | Releaser::Undelivered => &transitions.released,
            Releaser::Client { .. } => &transitions.revoked,
        };
        count_lease_end(transitions, counter, outcome);
    }
    Ok(outcomes)
}

/// Reads the reply to one item.
pub(in crate::store) fn parse_item(item: ReplyReader) -> Result<LeaseEnd> {
    super::parse_lease_end(&SCRIPT, "released", None, item)
}
