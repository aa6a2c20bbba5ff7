//! Ends leased tasks as failed attempts.

use super::{LeaseEnd, LeaseRef, WhenFull, is_large};
use crate::domain::limits;
use crate::domain::task::ErrorReport;
use crate::store::error::Result;
use crate::store::opaque;
use crate::store::redis::reply::ReplyReader;
use crate::store::redis::script::{Script, script};
use crate::store::shard::{Caller, Shard};

pub(super) static SCRIPT: Script = script!(write "fail", ["due", "task", "write_task", "events", "counts", "transition", "counter_entries", ("local function flush_counters(entries)" ["stats_format", "flush_counters"]), "stats_counters", "front", "piece_functions", ("local function use_pieces()" ["pieces"]), ("local function define_passes()" ["passes"]), "keyed_member", "wheel", "waiting", "dedupe", "free_dedupe", "replaced", "index_end", "finish_task", "outages", "lease", "lease_ends", "end_lease", "errors", "attempt"]);

/// A failed attempt.
#[derive(Clone, Debug)]
pub struct Failure {
    /// The task and its token.
    pub lease_ref: LeaseRef,
    /// The error.
    pub report: ErrorReport,
    /// When the task is retried, in ms from now, if attempts are left; `None`: never.
    pub wait_ms: Option<i64>,
}

/// Ends the tasks' leases; each task is retried, or ends dead or cancelled.
///
/// # Errors
/// [`Full`](crate::store::Error::Full) with [`WhenFull::Fail`], if Redis has no memory left for large details.
pub async fn fail(
    shard: &Shard,
    caller: &mut Caller,
    failures: &[Failure],
    when_full: WhenFull,
) -> Result<Vec<LeaseEnd>> {
    let has_large_details = |report: &ErrorReport| report.details.as_ref().is_some_and(|details| is_large(details));
    let has_large = || failures.iter().map(|failure| has_large_details(&failure.report));
    let mut call = match when_full == WhenFull::Fail && has_large().any(|large| large) {
        true => shard.growing_call(&SCRIPT, caller),
        false => shard.call(&SCRIPT, caller),
    };
    call.push_int(limits::RETAIN_DEAD_MS)
        .push_int(limits::RETAIN_OTHER_MS)
        .push_int(limits::MAX_ERRORS)
        .push_usize(limits::MAX_ERRORS_BYTES)
        .push_usize(failures.len());
    for Failure { lease_ref, report, wait_ms } in failures {
        let without_details = (when_full == WhenFull::Drop && has_large_details(report))
            .then(|| ErrorReport { details: None, ..report.clone() });
        let report = without_details.as_ref().unwrap_or(report);
        call.push(lease_ref.id.as_bytes())
            .push(lease_ref.token_bytes())
            .push(opaque::encode_report(report)?)
            .push(wait_ms.map(|ms| ms.to_string()).unwrap_or_default());
    }
    let mut outcomes = super::parse_items(call.send().await?, failures.len(), parse_item)?;
    if when_full == WhenFull::Drop {
        super::mark_dropped(&mut outcomes, has_large());
    }
    let transitions = shard.transitions();
    super::count_lease_ends(transitions, &transitions.failed, &outcomes);
    Ok(outcomes)
}

/// Reads the reply to one item.
pub(in crate::store) fn parse_item(item: ReplyReader) -> Result<LeaseEnd> {
    super::parse_lease_end(&SCRIPT, "failed", None, item)
}
