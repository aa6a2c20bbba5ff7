//! What the scripts have counted in a window, which ends with the last whole bucket of the first shard's clock: whoever
//! asks for the same window gets the same.

use deadpool_redis::redis::Value;
use futures_util::future::try_join_all;

use crate::domain::histogram::{Bucket, WaitHistogram};
use crate::domain::limits::STATS_BUCKET_MS;
use crate::domain::queue::QueueName;
use crate::domain::time::TimestampMs;
use crate::store::error::{Error, Result};
use crate::store::redis::reply::{ReplyReader, read_list};
use crate::store::redis::script::{Script, script};
use crate::store::shard::{Shard, Store};

pub(in crate::store) static SCRIPT: Script = script!(read "stats", ["clock", "stats_format"]);

/// Sums over a window.
#[derive(Clone, PartialEq, Default, Debug)]
pub struct WindowCounters {
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
    pub lease_expired: u64,
    /// How long all these leases were, ms.
    pub leased_ms: u64,
    /// How long the tasks handed out had been ready.
    pub waits: WaitHistogram,
}

impl WindowCounters {
    /// Leases ended, however.
    pub fn leases_ended(&self) -> u64 {
        self.completed.saturating_add(self.failed).saturating_add(self.released).saturating_add(self.lease_expired)
    }

    /// How long the tasks handed out had been ready on average, ms; `None` if there were none.
    pub fn mean_wait_ms(&self) -> Option<f64> {
        let claimed = self.waits.count();
        (claimed > 0).then(|| self.waited_ms as f64 / claimed as f64)
    }
}

/// A window, and what was counted in it.
#[derive(Clone, PartialEq, Debug)]
pub struct StatsWindow {
    /// Its end by Redis' clock.
    pub end: TimestampMs,
    /// The sums.
    pub counters: WindowCounters,
}

/// What was counted of the queue, or of all, in the last `buckets` whole buckets.
pub async fn read_window(store: &Store, queue: Option<&QueueName>, buckets: i64) -> Result<StatsWindow> {
    let mut counters = WindowCounters::default();
    let last = add_reply(&mut counters, read_shard(store.first_shard(), queue, buckets, None).await?)?;
    let others = store.shards().iter().filter(|shard| shard.index != store.first_shard().index);
    for answer in try_join_all(others.map(|shard| read_shard(shard, queue, buckets, Some(last)))).await? {
        add_reply(&mut counters, answer)?;
    }
    Ok(StatsWindow { end: TimestampMs((last + 1) * STATS_BUCKET_MS), counters })
}

async fn read_shard(shard: &Shard, queue: Option<&QueueName>, buckets: i64, last: Option<i64>) -> Result<Value> {
    let queue = queue.map_or("", QueueName::as_str);
    let last = last.map(|last| last.to_string()).unwrap_or_default();
    shard.read_script(&SCRIPT, vec![queue.into(), buckets.to_string().into(), last.into()]).await
}

/// Adds a shard's answer; the last bucket it speaks of.
pub(in crate::store) fn add_reply(counters: &mut WindowCounters, answer: Value) -> Result<i64> {
    let mut answer = read_list(answer)?;
    let last = answer.int()?;
    let add_next = |sum: &mut u64, list: &mut ReplyReader| -> Result<()> {
        *sum = sum.saturating_add(non_negative(list.int()?)?);
        Ok(())
    };
    add_next(&mut counters.submitted, &mut answer)?;
    let mut ends = answer.list()?;
    let WindowCounters { completed, failed, released, lease_expired: ran_out, leased_ms, .. } = counters;
    for sum in [completed, failed, released, ran_out, leased_ms] {
        add_next(sum, &mut ends)?;
    }
    let mut waits = answer.list()?;
    add_next(&mut counters.waited_ms, &mut waits)?;
    while waits.len() > 0 {
        let bucket = u16::try_from(waits.int()?).ok().and_then(Bucket::new);
        let bucket = bucket.ok_or_else(|| Error::Unexpected("a class of waiting times that there is not".into()))?;
        counters.waits.add(bucket, non_negative(waits.int()?)?);
    }
    Ok(last)
}

fn non_negative(number: i64) -> Result<u64> {
    u64::try_from(number).map_err(|_| Error::Unexpected(format!("a sum below nothing: {number}")))
}
