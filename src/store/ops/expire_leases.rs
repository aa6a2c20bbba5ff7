//! Lease expiry: ends expired leases as failed attempts.

use crate::domain::id::TaskId;
use crate::domain::limits;
use crate::domain::task::ErrorReport;
use crate::domain::token::Token;
use crate::store::error::Result;
use crate::store::opaque;
use crate::store::redis::reply;
use crate::store::redis::script::{Script, script};
use crate::store::shard::{Caller, Shard};

pub(super) static SCRIPT: Script = script!(write "expire_leases", ["due", "task", "write_task", "events", "counts", "transition", "counter_entries", ("local function flush_counters(entries)" ["stats_format", "flush_counters"]), "stats_counters", "front", "piece_functions", ("local function use_pieces()" ["pieces"]), ("local function define_passes()" ["passes"]), "keyed_member", "wheel", "waiting", "dedupe", "free_dedupe", "replaced", "index_end", "finish_task", "lease_ends", "end_lease", "errors", "attempt", "outages"]);

/// A lease that had expired when upkeep read it.
#[derive(Clone, Debug)]
pub struct ExpiredLease {
    /// The task.
    pub id: TaskId,
    /// Token of the lease.
    pub token: Token,
    /// The error that the task keeps.
    pub report: ErrorReport,
    /// When the task is retried, in ms from now, if attempts are left.
    pub wait_ms: i64,
}

/// The leases of a call that had expired.
#[derive(Clone, Debug)]
pub struct LeasesExpired {
    /// The indexes of the leases that were ended.
    pub ended: Vec<usize>,
    /// The number of leases that outages prolong.
    pub prolonged: usize,
}

/// Ends those leases that are still expired; a worker may have extended one since. Prolongs those that were alive when
/// an outage began.
pub async fn expire_leases(shard: &Shard, caller: &mut Caller, leases: &[ExpiredLease]) -> Result<LeasesExpired> {
    let mut call = shard.call(&SCRIPT, caller);
    call.push_int(limits::RETAIN_DEAD_MS)
        .push_int(limits::RETAIN_OTHER_MS)
        .push_int(limits::MAX_ERRORS)
        .push_usize(limits::MAX_ERRORS_BYTES)
        .push_usize(leases.len());
    for ExpiredLease { id, token, report, wait_ms } in leases {
        call.push(id.as_bytes()).push(token.as_bytes()).push(opaque::encode_report(report)?).push_int(*wait_ms);
    }
    let mut reply = reply::read_list(call.send().await?)?;
    let mut next_count = || reply.int().map(i64::unsigned_abs);
    let (dead, cancelled, past_expiry, prolonged) = (next_count()?, next_count()?, next_count()?, next_count()?);
    let ended: Vec<usize> = reply.map(|index| super::zero_based(reply::int(index)?)).collect::<Result<_>>()?;
    let transitions = shard.transitions();
    transitions.lease_expired.add(ended.len() as u64);
    transitions.dead.add(dead);
    transitions.cancelled.add(cancelled);
    transitions.expired.add(past_expiry);
    shard.client().metrics().counters.leases_prolonged.add(prolonged);
    Ok(LeasesExpired { ended, prolonged: usize::try_from(prolonged).unwrap_or(usize::MAX) })
}
