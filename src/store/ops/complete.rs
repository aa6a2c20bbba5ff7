//! Complete: leased tasks are done.

use serde_json::value::RawValue;

use super::{Ended, Held};
use crate::domain::limits;
use crate::domain::state::State;
use crate::domain::task::Document;
use crate::store::error::Result;
use crate::store::record;
use crate::store::reply::Items;
use crate::store::script::{Script, script};
use crate::store::shard::{Caller, Shard};

pub(super) static SCRIPT: Script =
    script!("complete", flags = " flags=allow-oom", ["call", "stage", "news", "sums", "measure", "lease", "end_lease"]);

/// A task that is done.
#[derive(Clone, Debug)]
pub struct Completion {
    /// Which, and the proof.
    pub held: Held,
    /// What it came to.
    pub result: Document,
}

/// Ends the tasks' leases and the tasks.
pub async fn complete(shard: &Shard, caller: &mut Caller, completions: &[Completion]) -> Result<Vec<Ended>> {
    let mut call = shard.call(&SCRIPT, caller);
    call.int(limits::RETAIN_COMPLETED_MS).count(completions.len());
    for Completion { held, result } in completions {
        let nothing = result.get() == RawValue::NULL.get();
        call.arg(held.id.as_bytes()).arg(held.proof()).arg(if nothing { Vec::new() } else { record::seal(result) });
    }
    let ended = super::answers(call.send().await?, completions.len(), answer)?;
    let transitions = shard.transitions();
    transitions.ended(&transitions.completed, &ended);
    Ok(ended)
}

/// Reads the answer to one item.
pub(in crate::store) fn answer(mut item: Items) -> Result<Ended> {
    Ok(match item.text()?.as_str() {
        "completed" => Ended::Done { state: State::Completed, run_at: None, repeated: false },
        "repeated" => Ended::Done { state: item.state()?, run_at: item.time()?, repeated: true },
        "lost" => Ended::Lost(item.state()?),
        "unknown" => Ended::Unknown,
        other => return super::unexpected(&SCRIPT, other),
    })
}
