//! Counters of a time window. It ends with the last complete bucket by the clock of the first shard, so that two
//! requests for the same window get the same numbers.

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

pub(in crate::store) static SCRIPT: Script =
    script!(read "stats", ["clock", "confirmed_clock", "counter_entries", "stats_format"]);

/// Counters of a window.
#[derive(Clone, PartialEq, Default, Debug)]
pub struct WindowCounters {
    /// Tasks submitted.
    pub submitted: u64,
    /// The sum of the waits of claimed tasks, in ms.
    pub waited_ms: u64,
    /// Leases that ended in a completion.
    pub completed: u64,
    /// Leases that ended in a failure.
    pub failed: u64,
    /// Leases that were released.
    pub released: u64,
    /// Leases that expired.
    pub lease_expired: u64,
    /// The sum of the durations of all ended leases, in ms.
    pub leased_ms: u64,
    /// Leases that ended with their task ready or scheduled again.
    pub returned: u64,
    /// The waits of claimed tasks: the time for which each had been ready.
    pub waits: WaitHistogram,
}

impl WindowCounters {
    /// Returns the number of ended leases.
    pub fn leases_ended(&self) -> u64 {
        self.completed.saturating_add(self.failed).saturating_add(self.released).saturating_add(self.lease_expired)
    }

    /// Returns the mean wait of claimed tasks in ms. `None`: no task was claimed.
    pub fn mean_wait_ms(&self) -> Option<f64> {
        let claimed = self.waits.count();
        (claimed > 0).then(|| self.waited_ms as f64 / claimed as f64)
    }
}

/// A window with its counters.
#[derive(Clone, PartialEq, Debug)]
pub struct StatsWindow {
    /// The end of the window by the Redis clock.
    pub end: TimestampMs,
    /// The counters.
    pub counters: WindowCounters,
}

/// Returns the counters of the last `buckets` complete buckets, of one queue or of all.
pub async fn read_window(store: &Store, queue: Option<&QueueName>, buckets: i64) -> Result<StatsWindow> {
    let mut counters = WindowCounters::default();
    let last = add_reply(&mut counters, read_shard(store.first_shard(), queue, buckets, None).await?)?;
    let others = store.shards().iter().filter(|shard| shard.index != store.first_shard().index);
    for reply in try_join_all(others.map(|shard| read_shard(shard, queue, buckets, Some(last)))).await? {
        add_reply(&mut counters, reply)?;
    }
    Ok(StatsWindow { end: TimestampMs((last + 1) * STATS_BUCKET_MS), counters })
}

async fn read_shard(shard: &Shard, queue: Option<&QueueName>, buckets: i64, last: Option<i64>) -> Result<Value> {
    let queue = queue.map_or("", QueueName::as_str);
    let last = last.map(|last| last.to_string()).unwrap_or_default();
    shard.read_script(&SCRIPT, vec![queue.into(), buckets.to_string().into(), last.into()]).await
}

/// Adds the reply of a shard. Returns the last bucket of its window.
pub(in crate::store) fn add_reply(counters: &mut WindowCounters, reply: Value) -> Result<i64> {
    let mut reply = read_list(reply)?;
    if reply.len() == 1 {
        return Err(Error::Unavailable(
            "the clock of Redis was set during the window, and counters are missing".into(),
        ));
    }
    let last = reply.int()?;
    let add_next = |sum: &mut u64, list: &mut ReplyReader| -> Result<()> {
        *sum = sum.saturating_add(non_negative(list.int()?)?);
        Ok(())
    };
    add_next(&mut counters.submitted, &mut reply)?;
    let mut ends = reply.list()?;
    let WindowCounters { completed, failed, released, lease_expired, leased_ms, returned, .. } = counters;
    for sum in [completed, failed, released, lease_expired, leased_ms, returned] {
        add_next(sum, &mut ends)?;
    }
    let mut waits = reply.list()?;
    add_next(&mut counters.waited_ms, &mut waits)?;
    while waits.len() > 0 {
        let bucket = u16::try_from(waits.int()?).ok().and_then(Bucket::new);
        let bucket = bucket.ok_or_else(|| Error::Unexpected("invalid bucket of waits".into()))?;
        counters.waits.add(bucket, non_negative(waits.int()?)?);
    }
    Ok(last)
}

fn non_negative(number: i64) -> Result<u64> {
    u64::try_from(number).map_err(|_| Error::Unexpected(format!("negative counter: {number}")))
}
