//! Release: leased tasks are handed back uncounted.

use super::{Ended, Held};
use crate::domain::limits;
use crate::store::error::Result;
use crate::store::reply::Items;
use crate::store::script::{Script, script};
use crate::store::shard::{Caller, Shard};

pub(super) static SCRIPT: Script = script!(
    "release",
    flags = " flags=allow-oom",
    ["call", "stage", "news", "sums", "measure", "wheel", "lease", "end_lease"]
);

/// A task handed back.
#[derive(Clone, Debug)]
pub struct Release {
    /// Which, and the proof.
    pub held: Held,
    /// When it can be claimed again, in ms from now.
    pub delay_ms: i64,
}

/// Ends the tasks' leases; each waits again, at its own place where it has no delay.
pub async fn release(shard: &Shard, caller: &mut Caller, releases: &[Release]) -> Result<Vec<Ended>> {
    let mut call = shard.call(&SCRIPT, caller);
    call.int(limits::RETAIN_OTHER_MS).count(releases.len());
    for Release { held, delay_ms } in releases {
        call.arg(held.id.as_bytes()).arg(held.proof()).int(*delay_ms);
    }
    let ended = super::answers(call.send().await?, releases.len(), answer)?;
    let transitions = shard.transitions();
    transitions.ended(&transitions.released, &ended);
    Ok(ended)
}

/// Reads the answer to one item.
pub(in crate::store) fn answer(item: Items) -> Result<Ended> {
    super::ended(&SCRIPT, "released", item)
}
