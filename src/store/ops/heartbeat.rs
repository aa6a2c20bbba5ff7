//! Extends leases at the workers' heartbeats.

use super::{LeaseRef, WhenFull, is_large};
use crate::domain::state::State;
use crate::domain::task::RawJson;
use crate::domain::time::TimestampMs;
use crate::store::error::Result;
use crate::store::opaque;
use crate::store::redis::reply::ReplyReader;
use crate::store::redis::script::{Script, script};
use crate::store::shard::{Caller, Shard};

pub(super) static SCRIPT: Script = script!(write "heartbeat", ["due", "task", "write_task", "outages", "lease"]);

/// A heartbeat for one task.
#[derive(Clone, Debug)]
pub struct LeaseHeartbeat {
    /// The task and its token.
    pub lease_ref: LeaseRef,
    /// New length of the lease from now, in ms; `None`: the length that the claim asked for.
    pub lease_ms: Option<i64>,
    /// Progress to store.
    pub progress: Option<RawJson>,
}

/// Outcome for one task.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum LeaseExtended {
    /// The lease is extended.
    Extended {
        /// Its new end.
        lease_until: TimestampMs,
        /// Whether a client asked to cancel the task.
        cancel_requested: bool,
        /// Whether the progress was dropped because Redis was full.
        dropped: bool,
    },
    /// The token does not hold the lease of the task, which is in this state.
    LeaseLost(State),
    /// There is no such task.
    Unknown,
}

/// Extends the tasks' leases, each at most to its start + `max_run_ms`.
///
/// # Errors
/// [`Full`](crate::store::Error::Full) with [`WhenFull::Fail`], if Redis has no memory left for large progress.
pub async fn heartbeat(
    shard: &Shard,
    caller: &mut Caller,
    heartbeats: &[LeaseHeartbeat],
    when_full: WhenFull,
) -> Result<Vec<LeaseExtended>> {
    let has_large_progress =
        |heartbeat: &LeaseHeartbeat| heartbeat.progress.as_ref().is_some_and(|progress| is_large(progress));
    let mut call = match when_full == WhenFull::Fail && heartbeats.iter().any(has_large_progress) {
        true => shard.growing_call(&SCRIPT, caller),
        false => shard.call(&SCRIPT, caller),
    };
    call.push_usize(heartbeats.len());
    for heartbeat in heartbeats {
        let LeaseHeartbeat { lease_ref, lease_ms, progress } = heartbeat;
        let progress = progress.as_ref().filter(|_| when_full != WhenFull::Drop || !has_large_progress(heartbeat));
        call.push(lease_ref.id.as_bytes())
            .push(lease_ref.token_bytes())
            .push(lease_ms.map(|ms| ms.to_string()).unwrap_or_default())
            .push(progress.map(|progress| opaque::encode(progress)).unwrap_or_default());
    }
    let mut outcomes = super::parse_items(call.send().await?, heartbeats.len(), parse_item)?;
    if when_full == WhenFull::Drop {
        for (outcome, heartbeat) in outcomes.iter_mut().zip(heartbeats) {
            if let LeaseExtended::Extended { dropped, .. } = outcome {
                *dropped = has_large_progress(heartbeat);
            }
        }
    }
    Ok(outcomes)
}

/// Reads the reply to one item.
pub(in crate::store) fn parse_item(mut item: ReplyReader) -> Result<LeaseExtended> {
    Ok(match item.text()?.as_str() {
        "extended" => {
            let lease_until = TimestampMs(item.int()?);
            LeaseExtended::Extended { lease_until, cancel_requested: item.int()? == 1, dropped: false }
        }
        "lease_lost" => LeaseExtended::LeaseLost(item.state()?),
        "unknown" => LeaseExtended::Unknown,
        other => return super::unexpected_reply(&SCRIPT, other),
    })
}
