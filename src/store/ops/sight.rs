//! Sight: which workers a server has seen, written in bulk.

use std::time::Duration;

use crate::domain::worker::Worker;
use crate::store::error::{Error, Result};
use crate::store::reply;
use crate::store::script::{Script, script};
use crate::store::shard::{Caller, Shard};

pub(super) static SCRIPT: Script = script!("sight", flags = " flags=allow-oom", ["call", "stage"]);

/// A lease may be twice as long as a worker needs to be heard of: what is known of one that works is kept meanwhile.
const FORGET_MS: i64 = 24 * 3_600_000;
/// Workers that are remembered; names are the clients' choice.
const MOST: i64 = 100_000;

/// A worker, as a server knows it.
#[derive(Clone, Debug)]
pub struct Sighting {
    /// Who.
    pub worker: Worker,
    /// How long ago it was seen.
    pub seen: Duration,
    /// How long ago it claimed; `None`: this server does not know.
    pub claimed: Option<Duration>,
}

/// Notes that a server has seen these workers, at most 500, in the store's first shard.
pub async fn sight(home: &Shard, caller: &mut Caller, sightings: &[Sighting]) -> Result<i64> {
    let mut call = home.call(&SCRIPT, caller);
    call.int(FORGET_MS).int(MOST).count(sightings.len());
    let ms = |ago: Duration| i64::try_from(ago.as_millis()).unwrap_or(i64::MAX);
    for Sighting { worker, seen, claimed } in sightings {
        let known = serde_json::to_vec(worker).map_err(|error| Error::Unexpected(error.to_string()))?;
        call.arg(Worker::who(&worker.name).as_bytes()).int(ms(*seen));
        match claimed {
            Some(ago) => call.int(ms(*ago)),
            None => call.arg(""),
        };
        call.arg(known);
    }
    reply::int(call.send().await?)
}
