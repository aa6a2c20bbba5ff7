//! Reap: leases that ran out.

use deadpool_redis::redis::Value;

use crate::domain::id::TaskId;
use crate::domain::limits;
use crate::domain::task::ErrorReport;
use crate::domain::token::Token;
use crate::store::error::{Error, Result};
use crate::store::record;
use crate::store::reply;
use crate::store::script::{Script, script};
use crate::store::shard::{Caller, Shard};

pub(super) static SCRIPT: Script = script!(
    "reap",
    flags = " flags=allow-oom",
    ["call", "stage", "news", "sums", "measure", "wheel", "lease", "end_lease", "attempt"]
);

/// A lease that ran out when it was looked at.
#[derive(Clone, Debug)]
pub struct Overdue {
    /// Whose.
    pub id: TaskId,
    /// Which.
    pub lease: Token,
    /// What to remember of it.
    pub report: ErrorReport,
    /// When the task is tried again, in ms from now, if attempts are left.
    pub wait_ms: i64,
}

/// Ends those leases that have run out (one may have been prolonged since). Which, by their places in `leases`.
pub async fn reap(shard: &Shard, caller: &mut Caller, leases: &[Overdue]) -> Result<Vec<usize>> {
    let mut call = shard.call(&SCRIPT, caller);
    call.int(limits::RETAIN_DEAD_MS)
        .int(limits::RETAIN_OTHER_MS)
        .int(limits::ERRORS)
        .count(limits::ERRORS_BYTES)
        .count(leases.len());
    for Overdue { id, lease, report, wait_ms } in leases {
        call.arg(id.as_bytes()).arg(lease.as_bytes()).arg(record::seal_report(report)?).int(*wait_ms);
    }
    let mut answer = reply::items(call.send().await?)?;
    let mut next = || answer.int().map(i64::unsigned_abs);
    let (dead, cancelled) = (next()?, next()?);
    let ended: Vec<usize> = answer.map(place).collect::<Result<_>>()?;
    let transitions = shard.transitions();
    transitions.lease_ran_out.add(ended.len() as u64);
    transitions.dead.add(dead);
    transitions.cancelled.add(cancelled);
    Ok(ended)
}

/// Scripts count from 1.
fn place(value: Value) -> Result<usize> {
    let number = reply::int(value)?;
    let place = usize::try_from(number).ok().and_then(|number| number.checked_sub(1));
    place.ok_or_else(|| Error::Unexpected(format!("a place of {number}")))
}
