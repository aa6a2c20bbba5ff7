//! Fail: an execution went wrong, and its worker says so.

use super::{Ended, Held};
use crate::domain::limits;
use crate::domain::task::ErrorReport;
use crate::store::error::Result;
use crate::store::record;
use crate::store::reply::Items;
use crate::store::script::{Script, script};
use crate::store::shard::{Caller, Shard};

pub(super) static SCRIPT: Script = script!(
    "fail",
    flags = " flags=allow-oom",
    ["call", "stage", "news", "sums", "measure", "wheel", "lease", "end_lease", "attempt"]
);

/// An execution that went wrong.
#[derive(Clone, Debug)]
pub struct Failure {
    /// Which task, and the proof.
    pub held: Held,
    /// Why.
    pub report: ErrorReport,
    /// When it shall be tried again, in ms from now, if attempts are left; `None`: never.
    pub wait_ms: Option<i64>,
}

/// Ends the tasks' leases; each task is tried again or is dead.
pub async fn fail(shard: &Shard, caller: &mut Caller, failures: &[Failure]) -> Result<Vec<Ended>> {
    let mut call = shard.call(&SCRIPT, caller);
    call.int(limits::RETAIN_DEAD_MS)
        .int(limits::RETAIN_OTHER_MS)
        .int(limits::ERRORS)
        .count(limits::ERRORS_BYTES)
        .count(failures.len());
    for Failure { held, report, wait_ms } in failures {
        call.arg(held.id.as_bytes())
            .arg(held.proof())
            .arg(record::seal_report(report)?)
            .arg(wait_ms.map(|ms| ms.to_string()).unwrap_or_default());
    }
    let ended = super::answers(call.send().await?, failures.len(), answer)?;
    let transitions = shard.transitions();
    transitions.ended(&transitions.failed, &ended);
    Ok(ended)
}

/// Reads the answer to one item.
pub(in crate::store) fn answer(item: Items) -> Result<Ended> {
    super::ended(&SCRIPT, "failed", item)
}
