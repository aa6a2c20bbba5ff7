//! Heartbeat: workers are still at it.

use super::Held;
use crate::domain::state::State;
use crate::domain::task::Document;
use crate::domain::time::Millis;
use crate::store::error::Result;
use crate::store::record;
use crate::store::reply::Items;
use crate::store::script::{Script, script};
use crate::store::shard::{Caller, Shard};

pub(super) static SCRIPT: Script = script!("heartbeat", flags = " flags=allow-oom", ["call", "stage", "lease"]);

/// A sign of life.
#[derive(Clone, Debug)]
pub struct Beat {
    /// Which task, and the proof.
    pub held: Held,
    /// For how long from now; `None`: for as long as the claim asked for.
    pub lease_ms: Option<i64>,
    /// How far it is.
    pub progress: Option<Document>,
}

/// What a sign of life was answered with.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Prolonged {
    /// The lease holds.
    Held {
        /// Until when.
        until: Millis,
        /// A client wants the task called off.
        cancel_requested: bool,
    },
    /// It is not, or no longer, this worker's.
    Lost(State),
    /// No such task.
    Unknown,
}

/// Prolongs the tasks' leases, each at most to its start + `max_run_ms`.
pub async fn heartbeat(shard: &Shard, caller: &mut Caller, beats: &[Beat]) -> Result<Vec<Prolonged>> {
    let mut call = shard.call(&SCRIPT, caller);
    call.count(beats.len());
    for Beat { held, lease_ms, progress } in beats {
        call.arg(held.id.as_bytes())
            .arg(held.proof())
            .arg(lease_ms.map(|ms| ms.to_string()).unwrap_or_default())
            .arg(progress.as_ref().map(|progress| record::seal(progress)).unwrap_or_default());
    }
    super::answers(call.send().await?, beats.len(), answer)
}

/// Reads the answer to one item.
pub(in crate::store) fn answer(mut item: Items) -> Result<Prolonged> {
    Ok(match item.text()?.as_str() {
        "held" => Prolonged::Held { until: Millis(item.int()?), cancel_requested: item.int()? == 1 },
        "lost" => Prolonged::Lost(item.state()?),
        "unknown" => Prolonged::Unknown,
        other => return super::unexpected(&SCRIPT, other),
    })
}
