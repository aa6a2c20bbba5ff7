//! Extends leases at the workers' heartbeats.

use super::LeaseRef;
use crate::domain::state::State;
use crate::domain::task::RawJson;
use crate::domain::time::TimestampMs;
use crate::store::error::Result;
use crate::store::record;
use crate::store::redis::reply::ReplyReader;
use crate::store::redis::script::{Script, script};
use crate::store::shard::{Caller, Shard};

pub(super) static SCRIPT: Script = script!(write "heartbeat", ["outages", "lease"]);

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
    },
    /// The token does not hold the lease of the task, which is in this state.
    LeaseLost(State),
    /// There is no such task.
    Unknown,
}

/// Extends the tasks' leases, each at most to its start + `max_run_ms`.
pub async fn heartbeat(
    shard: &Shard,
    caller: &mut Caller,
    heartbeats: &[LeaseHeartbeat],
) -> Result<Vec<LeaseExtended>> {
    let mut call = shard.call(&SCRIPT, caller);
    call.push_usize(heartbeats.len());
    for LeaseHeartbeat { lease_ref, lease_ms, progress } in heartbeats {
        call.push(lease_ref.id.as_bytes())
            .push(lease_ref.token_bytes())
            .push(lease_ms.map(|ms| ms.to_string()).unwrap_or_default())
            .push(progress.as_ref().map(|progress| record::encode(progress)).unwrap_or_default());
    }
    super::parse_items(call.send().await?, heartbeats.len(), parse_item)
}

/// Reads the reply to one item.
pub(in crate::store) fn parse_item(mut item: ReplyReader) -> Result<LeaseExtended> {
    Ok(match item.text()?.as_str() {
        "extended" => {
            LeaseExtended::Extended { lease_until: TimestampMs(item.int()?), cancel_requested: item.int()? == 1 }
        }
        "lease_lost" => LeaseExtended::LeaseLost(item.state()?),
        "unknown" => LeaseExtended::Unknown,
        other => return super::unexpected_reply(&SCRIPT, other),
    })
}
