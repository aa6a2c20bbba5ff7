//! Sample: who holds how many leases, looked at from time to time. Counting it with every claim and every end of a lease
//! would cost each task more than the figure is worth.

use crate::domain::time::TimestampMs;
use crate::store::error::Result;
use crate::store::redis::reply;
use crate::store::redis::script::{Script, script};
use crate::store::shard::{Caller, Shard};

pub(super) static SCRIPT: Script = script!(write "sample_leases", []);

/// Queues looked into at most.
const MAX_QUEUES: i64 = 500;
/// Leases looked at at most: about 2 ms of Redis.
const MAX_LEASES: i64 = 2000;
/// Samples kept: those of the time in which a worker counts as alive, and one that is under way.
const SAMPLES_KEPT: i64 = 8;

/// Notes it once in 5 s, whoever asks: leases held since `at`, or now. Returns since when those that are noted have been
/// held. Shards are asked one after another, and a worker whose task ends meanwhile may hold its next one in another:
/// only what was held at one time adds up.
pub async fn sample_leases(shard: &Shard, caller: &mut Caller, held_since: Option<TimestampMs>) -> Result<TimestampMs> {
    let mut call = shard.call(&SCRIPT, caller);
    call.push_int(MAX_QUEUES).push_int(MAX_LEASES).push_int(SAMPLES_KEPT);
    match held_since {
        Some(held_since) => call.push_int(held_since.0),
        None => call.push(""),
    };
    reply::int(call.send().await?).map(TimestampMs)
}
