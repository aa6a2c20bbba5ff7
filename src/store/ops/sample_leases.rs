//! Samples how many leases each worker holds. Counting them with every claim and every end of a lease would cost each
//! task more than the figure is worth.

use crate::domain::time::TimestampMs;
use crate::store::error::Result;
use crate::store::redis::reply;
use crate::store::redis::script::{Script, script};
use crate::store::shard::{Caller, Shard};

pub(super) static SCRIPT: Script = script!(write "sample_leases", ["task"]);

/// Maximum of queues read in a sample.
const MAX_QUEUES: i64 = 500;
/// Maximum of leases read in a sample.
const MAX_LEASES: i64 = 2000;
/// Samples kept: those of the time in which a worker counts as alive, and the current one.
const SAMPLES_KEPT: i64 = 8;

/// Takes a sample, once in 5 s for all servers. Counts leases held since `held_since`, or now. Returns the `held_since` of
/// the sample of these 5 s.
///
/// Shards are sampled one after another. A worker whose task ends meanwhile may hold its next lease in another shard:
/// only leases held at the same time may be added up.
pub async fn sample_leases(shard: &Shard, caller: &mut Caller, held_since: Option<TimestampMs>) -> Result<TimestampMs> {
    let mut call = shard.call(&SCRIPT, caller);
    call.push_int(MAX_QUEUES).push_int(MAX_LEASES).push_int(SAMPLES_KEPT);
    match held_since {
        Some(held_since) => call.push_int(held_since.0),
        None => call.push(""),
    };
    reply::int(call.send().await?).map(TimestampMs)
}
