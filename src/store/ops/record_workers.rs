//! Sight: which workers a server has seen, written in bulk.

use std::time::Duration;

use crate::domain::worker::Worker;
use crate::store::error::{Error, Result};
use crate::store::redis::reply;
use crate::store::redis::script::{Script, script};
use crate::store::shard::{Caller, Shard};

pub(super) static SCRIPT: Script = script!(write "record_workers", []);

/// A lease may be twice as long as a worker needs to be heard of: what is known of one that works is kept meanwhile.
const WORKER_RETENTION_MS: i64 = 24 * 3_600_000;
/// Workers that are remembered; names are the clients' choice.
const MAX_WORKERS: i64 = 100_000;

/// A worker, as a server knows it.
#[derive(Clone, Debug)]
pub struct WorkerSeen {
    /// Who.
    pub worker: Worker,
    /// How long ago it was seen.
    pub seen_ago: Duration,
    /// How long ago it claimed; `None`: this server does not know.
    pub claimed: Option<Duration>,
}

/// Notes that a server has seen these workers, at most 500, in the store's first shard.
pub async fn record_workers(first_shard: &Shard, caller: &mut Caller, workers: &[WorkerSeen]) -> Result<i64> {
    let mut call = first_shard.call(&SCRIPT, caller);
    call.push_int(WORKER_RETENTION_MS).push_int(MAX_WORKERS).push_usize(workers.len());
    let ms_of = |ago: Duration| i64::try_from(ago.as_millis()).unwrap_or(i64::MAX);
    for WorkerSeen { worker, seen_ago: seen, claimed } in workers {
        let encoded = serde_json::to_vec(worker).map_err(|error| Error::Unexpected(error.to_string()))?;
        call.push(Worker::name_digest(&worker.name).as_bytes()).push_int(ms_of(*seen));
        match claimed {
            Some(ago) => call.push_int(ms_of(*ago)),
            None => call.push(""),
        };
        call.push(encoded);
    }
    reply::int(call.send().await?)
}
