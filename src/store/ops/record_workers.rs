//! Records the workers that a server has seen, in bulk.

use std::time::Duration;

use crate::domain::worker::Worker;
use crate::store::error::{Error, Result};
use crate::store::redis::reply;
use crate::store::redis::script::{Script, script};
use crate::store::shard::{Caller, Shard};

pub(super) static SCRIPT: Script = script!(write "record_workers", []);

/// How long a worker is kept after it was last seen: longer than any lease, so that a working one is never dropped.
const WORKER_RETENTION_MS: i64 = 24 * 3_600_000;
/// Maximum of workers kept. Clients choose the names, so their number has no other bound.
const MAX_WORKERS: i64 = 100_000;

/// A worker as a server has seen it.
#[derive(Clone, Debug)]
pub struct WorkerSeen {
    /// Its description.
    pub worker: Worker,
    /// Time since it was last seen.
    pub seen_ago: Duration,
    /// Time since it last claimed; `None` if it has not claimed at this server.
    pub claimed_ago: Option<Duration>,
}

/// Records at most 500 workers in the first shard of the store. Returns their number.
pub async fn record_workers(first_shard: &Shard, caller: &mut Caller, workers: &[WorkerSeen]) -> Result<i64> {
    let mut call = first_shard.call(&SCRIPT, caller);
    call.push_int(WORKER_RETENTION_MS).push_int(MAX_WORKERS).push_usize(workers.len());
    let ms_of = |ago: Duration| i64::try_from(ago.as_millis()).unwrap_or(i64::MAX);
    for WorkerSeen { worker, seen_ago, claimed_ago } in workers {
        let encoded = serde_json::to_vec(worker).map_err(|error| Error::Unexpected(error.to_string()))?;
        call.push(Worker::name_digest(&worker.name).as_bytes()).push_int(ms_of(*seen_ago));
        match claimed_ago {
            Some(ago) => call.push_int(ms_of(*ago)),
            None => call.push(""),
        };
        call.push(encoded);
    }
    reply::int(call.send().await?)
}
