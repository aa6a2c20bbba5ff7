//! What the scripts have counted in a window, which ends with the last whole bucket of the first shard's clock: whoever
//! asks for the same window gets the same.

use deadpool_redis::redis::Value;
use futures_util::future::try_join_all;

use crate::domain::histogram::{Bucket, Histogram};
use crate::domain::limits::STATS_BUCKET_MS;
use crate::domain::queue::QueueName;
use crate::domain::time::Millis;
use crate::store::error::{Error, Result};
use crate::store::reply::{Items, items};
use crate::store::script::Script;
use crate::store::shard::{Shard, Store};

pub(in crate::store) static SCRIPT: Script = Script {
    name: "stats",
    text: concat!(
        "#!lua flags=no-writes\n",
        include_str!("../ops/lib/look.lua"),
        include_str!("../ops/lib/sums.lua"),
        include_str!("stats.lua")
    ),
};

/// Sums over a window.
#[derive(Clone, PartialEq, Default, Debug)]
pub struct Sums {
    /// Tasks submitted.
    pub submitted: u64,
    /// For how long the tasks handed out had been ready, ms in all.
    pub waited_ms: u64,
    /// Leases ended by a completion.
    pub completed: u64,
    /// By a failure.
    pub failed: u64,
    /// Given back.
    pub released: u64,
    /// Run out.
    pub ran_out: u64,
    /// How long all these leases were, ms.
    pub leased_ms: u64,
    /// How long the tasks handed out had been ready.
    pub waits: Histogram,
}

impl Sums {
    /// Leases ended, however.
    pub fn ended(&self) -> u64 {
        self.completed.saturating_add(self.failed).saturating_add(self.released).saturating_add(self.ran_out)
    }

    /// How long the tasks handed out had been ready on average, ms; `None` if there were none.
    pub fn mean_wait_ms(&self) -> Option<f64> {
        let started = self.waits.count();
        (started > 0).then(|| self.waited_ms as f64 / started as f64)
    }
}

/// A window, and what was counted in it.
#[derive(Clone, PartialEq, Debug)]
pub struct Window {
    /// Its end by Redis' clock.
    pub end: Millis,
    /// The sums.
    pub sums: Sums,
}

/// What was counted of the queue, or of all, in the last `buckets` whole buckets.
pub async fn window(store: &Store, queue: Option<&QueueName>, buckets: i64) -> Result<Window> {
    let mut sums = Sums::default();
    let last = add(&mut sums, look(store.home(), queue, buckets, None).await?)?;
    let others = store.shards().iter().filter(|shard| shard.index != store.home().index);
    for answer in try_join_all(others.map(|shard| look(shard, queue, buckets, Some(last)))).await? {
        add(&mut sums, answer)?;
    }
    Ok(Window { end: Millis((last + 1) * STATS_BUCKET_MS), sums })
}

async fn look(shard: &Shard, queue: Option<&QueueName>, buckets: i64, last: Option<i64>) -> Result<Value> {
    let queue = queue.map_or("", QueueName::as_str);
    let last = last.map(|last| last.to_string()).unwrap_or_default();
    shard.look(&SCRIPT, vec![queue.into(), buckets.to_string().into(), last.into()]).await
}

/// Adds a shard's answer; the last bucket it speaks of.
pub(in crate::store) fn add(sums: &mut Sums, answer: Value) -> Result<i64> {
    let mut answer = items(answer)?;
    let last = answer.int()?;
    let next = |sum: &mut u64, list: &mut Items| -> Result<()> {
        *sum = sum.saturating_add(whole(list.int()?)?);
        Ok(())
    };
    next(&mut sums.submitted, &mut answer)?;
    let mut ends = answer.items()?;
    let Sums { completed, failed, released, ran_out, leased_ms, .. } = sums;
    for sum in [completed, failed, released, ran_out, leased_ms] {
        next(sum, &mut ends)?;
    }
    let mut waits = answer.items()?;
    next(&mut sums.waited_ms, &mut waits)?;
    while waits.len() > 0 {
        let bucket = u16::try_from(waits.int()?).ok().and_then(Bucket::new);
        let bucket = bucket.ok_or_else(|| Error::Unexpected("a class of waiting times that there is not".into()))?;
        sums.waits.add(bucket, whole(waits.int()?)?);
    }
    Ok(last)
}

fn whole(number: i64) -> Result<u64> {
    u64::try_from(number).map_err(|_| Error::Unexpected(format!("a sum below nothing: {number}")))
}
