//! Statistics of the data set and its queues, for monitoring. The work is bounded for any number of queues and tasks:
//! each shard returns a few pages of queue names, the counts of those queues, and the ages of first tasks.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet};

use deadpool_redis::redis::{Value, pipe};
use futures_util::future::{try_join, try_join_all};

use super::next_due::next_due;
use super::queue_records::{Counts, decode_shard, queue_records};
use super::queues::oldest_queued_since;
use crate::domain::queue::QueueName;
use crate::domain::time::TimestampMs;
use crate::store::error::{Result, if_readable};
use crate::store::redis::reply::{ReplyReader, read_list, text};
use crate::store::settings;
use crate::store::shard::{Shard, Store};

/// The maximum number of queues returned.
pub const MAX_QUEUES: usize = 100;
/// The maximum number of candidates, all shards together, whose counts are read if there are more queues: the first by name,
/// and the first that are due. Each shard has at least two.
const MAX_FIRST: usize = 2000;
const MAX_DUE: usize = 500;
/// The maximum number of first tasks whose age is read, all shards together.
const MAX_HEADS: usize = 2048;
/// The maximum number of slots read per queue and shard.
const MAX_SLOTS_PER_QUEUE: usize = 1000;
/// Redis serves other clients between two pipelines.
const QUEUES_PER_PIPELINE: usize = 50;
/// And between two reads of records.
const RECORDS_PER_READ: usize = 500;

/// Statistics of the whole data set.
#[derive(Debug)]
pub struct DatasetStats {
    /// The counts of all queues together.
    pub totals: Counts,
    /// The age of the oldest due work of upkeep in ms. 0: no work is due.
    pub overdue_ms: i64,
    shards: Vec<ShardStats>,
}

/// Statistics of queues.
#[derive(Debug)]
pub struct QueueStatsList {
    /// The queues by name, without those whose record is unreadable. If there are more than [`MAX_QUEUES`]: the candidates with
    /// the most waiting and leased tasks, then the first by name. The candidates of a shard are its first queues by name, and
    /// its first due queues.
    pub queues: Vec<QueueStats>,
    /// Whether there are more queues than returned.
    pub truncated: bool,
}

/// Statistics of one queue.
#[derive(Clone, Debug)]
pub struct QueueStats {
    /// Its name.
    pub name: QueueName,
    /// Its tasks.
    pub counts: Counts,
    /// Whether it is paused.
    pub paused: bool,
    /// The age of the oldest ready task in ms. Exact if all queues together have at most 2048 slots with ready tasks;
    /// beyond, only the slots with the next and the last turns count.
    pub oldest_ready_age_ms: Option<i64>,
}

/// Statistics of one shard.
#[derive(Debug)]
struct ShardStats {
    now: TimestampMs,
    overdue_ms: i64,
    totals: Counts,
    /// The first queues by name.
    first_queues: Vec<QueueName>,
    /// The candidates of the shard.
    candidates: BTreeSet<QueueName>,
}

/// Reads the statistics of all shards concurrently.
pub async fn dataset_stats(store: &Store) -> Result<DatasetStats> {
    let shards = store.shards();
    let limits = (MAX_FIRST.div_ceil(shards.len()).max(MAX_QUEUES + 1), MAX_DUE.div_ceil(shards.len()));
    let parts = try_join_all(shards.iter().map(|shard| shard_stats(shard, limits))).await?;
    let mut stats = DatasetStats { totals: Counts::default(), overdue_ms: 0, shards: Vec::new() };
    for part in &parts {
        stats.totals.merge(part.totals);
        stats.overdue_ms = stats.overdue_ms.max(part.overdue_ms);
    }
    Ok(DatasetStats { shards: parts, ..stats })
}

impl DatasetStats {
    /// Reads the statistics of queues, in about 20 successive calls if there are many.
    pub async fn queue_stats(&self, store: &Store) -> Result<QueueStatsList> {
        let first_queues: BTreeSet<&QueueName> = self.shards.iter().flat_map(|shard| &shard.first_queues).collect();
        let truncated = first_queues.len() > MAX_QUEUES;
        let shown: BTreeSet<QueueName> = match truncated {
            false => first_queues.into_iter().cloned().collect(),
            true => {
                let most = largest(store, &self.shards).await?;
                let rest = first_queues
                    .into_iter()
                    .filter(|name| !most.contains(*name))
                    .take(MAX_QUEUES - most.len())
                    .cloned();
                rest.collect::<Vec<_>>().into_iter().chain(most.iter().cloned()).collect()
            }
        };
        Ok(QueueStatsList {
            queues: read_queue_stats(store, &self.shards, shown.into_iter().collect()).await?,
            truncated,
        })
    }
}

/// `limits`: of the first queues by name, and of the first due queues.
async fn shard_stats(shard: &Shard, limits: (usize, usize)) -> Result<ShardStats> {
    let mut pipeline = pipe();
    pipeline.cmd("HGET").arg(shard.keys.callers()).arg("shard");
    pipeline.cmd("ZRANGE").arg(shard.keys.queues()).arg(0).arg(limits.0 - 1);
    pipeline.cmd("ZRANGE").arg(shard.keys.due()).arg(0).arg(limits.1 - 1);
    let (upcoming, replies) = try_join(next_due(shard), shard.send_pipeline(&pipeline)).await?;
    let mut replies = replies.into_iter();
    let mut next_reply = || replies.next().unwrap_or(Value::Nil);
    let totals = decode_shard(&next_reply())?.counts;
    let first_queues: Vec<QueueName> = queue_names(read_list(next_reply())?).collect();
    let due_queues = queue_names(read_list(next_reply())?);
    let candidates = first_queues.iter().cloned().chain(due_queues).collect();
    let due = [upcoming.due_at, upcoming.expires_at, upcoming.retention_ends_at].into_iter().flatten().min();
    let overdue_ms = due.map_or(0, |due| upcoming.now.0.saturating_sub(due.0).max(0));
    Ok(ShardStats { now: upcoming.now, overdue_ms, totals, first_queues, candidates })
}

fn queue_names(list: ReplyReader) -> impl Iterator<Item = QueueName> {
    list.filter_map(|name| QueueName::parse(&text(name).ok()?))
}

/// Returns the candidates with the most waiting and leased tasks, counted in the shards where they are candidates.
async fn largest(store: &Store, shard_stats: &[ShardStats]) -> Result<BTreeSet<QueueName>> {
    let reads = store.shards().iter().zip(shard_stats).map(|(shard, stats)| async move {
        let candidates: Vec<QueueName> = stats.candidates.iter().cloned().collect();
        let mut found = Vec::new();
        for chunk in candidates.chunks(RECORDS_PER_READ) {
            for (name, record) in chunk.iter().zip(queue_records(shard, chunk).await?) {
                let Counts { scheduled, ready, leased, .. } = record.unwrap_or_default().counts;
                found.push((name.clone(), scheduled.saturating_add(ready).saturating_add(leased)));
            }
        }
        crate::store::Result::Ok(found)
    });
    let mut sums: BTreeMap<QueueName, i64> = BTreeMap::new();
    for (name, count) in try_join_all(reads).await?.into_iter().flatten() {
        *sums.entry(name).or_default() += count;
    }
    let mut sums: Vec<(QueueName, i64)> = sums.into_iter().collect();
    // The sort is stable: queues with equal counts stay in the order of their names.
    sums.sort_by_key(|(_, count)| Reverse(*count));
    Ok(sums.into_iter().take(MAX_QUEUES).map(|(name, _)| name).collect())
}

async fn read_queue_stats(store: &Store, shard_stats: &[ShardStats], shown: Vec<QueueName>) -> Result<Vec<QueueStats>> {
    let parts = store.shards().iter().map(|shard| queue_records(shard, &shown));
    let (parts, paused) = try_join(try_join_all(parts), read_paused(store.first_shard(), &shown)).await?;
    let nonempty = parts.iter().flatten().flatten().filter(|record| record.counts.ready > 0).count();
    let slots = (MAX_HEADS / nonempty.max(1)).clamp(2, MAX_SLOTS_PER_QUEUE);
    let age_reads = store.shards().iter().zip(shard_stats).zip(&parts).map(|((shard, stats), part)| {
        let queues = shown.iter().zip(part).map(move |(name, record)| async move {
            match record.as_ref().is_some_and(|record| record.counts.ready > 0) {
                true => if_readable(oldest_ready_age_ms(shard, stats.now, name, slots).await).map(Option::flatten),
                false => Ok(None),
            }
        });
        try_join_all(queues)
    });
    let ages = try_join_all(age_reads).await?;
    let mut queue_stats: Vec<QueueStats> = Vec::with_capacity(shown.len());
    for (name, paused) in shown.into_iter().zip(paused) {
        queue_stats.push(QueueStats { name, counts: Counts::default(), paused, oldest_ready_age_ms: None });
    }
    // A sum without an unreadable part would be too low.
    let unreadable: BTreeSet<usize> = parts
        .iter()
        .flat_map(|part| part.iter().enumerate().filter(|(_, record)| record.is_none()))
        .map(|(index, _)| index)
        .collect();
    for (part, ages) in parts.into_iter().zip(ages) {
        for ((queue, record), age) in queue_stats.iter_mut().zip(part).zip(ages) {
            queue.counts.merge(record.unwrap_or_default().counts);
            queue.oldest_ready_age_ms = queue.oldest_ready_age_ms.max(age);
        }
    }
    let readable = queue_stats.into_iter().enumerate().filter(|(index, _)| !unreadable.contains(index));
    Ok(readable.map(|(_, queue)| queue).collect())
}

/// Returns whether each queue is paused by the master copy of its settings.
async fn read_paused(first_shard: &Shard, queues: &[QueueName]) -> Result<Vec<bool>> {
    let mut found = Vec::with_capacity(queues.len());
    for chunk in queues.chunks(QUEUES_PER_PIPELINE) {
        let mut pipeline = pipe();
        for name in chunk {
            pipeline.cmd("HMGET").arg(first_shard.keys.settings(name)).arg(&settings::FIELDS);
        }
        for values in first_shard.send_pipeline(&pipeline).await? {
            let settings = if_readable(read_list(values).and_then(|mut values| settings::decode(&mut values)))?;
            found.push(settings.unwrap_or_default().paused);
        }
    }
    Ok(found)
}

async fn oldest_ready_age_ms(shard: &Shard, now: TimestampMs, queue: &QueueName, slots: usize) -> Result<Option<i64>> {
    // The wheel begins with the highest priority, so the oldest task may be at its end.
    let half = i64::try_from(slots / 2).unwrap_or(i64::MAX);
    let mut pipeline = pipe();
    pipeline.cmd("ZRANGE").arg(shard.keys.wheel(queue)).arg(0).arg(half - 1);
    pipeline.cmd("ZRANGE").arg(shard.keys.wheel(queue)).arg(-half).arg(-1);
    let mut entries = BTreeSet::new();
    for reply in shard.send_pipeline(&pipeline).await? {
        for entry in read_list(reply)? {
            entries.insert(text(entry)?);
        }
    }
    let entries: Vec<String> = entries.into_iter().collect();
    let since = oldest_queued_since(shard, queue, &entries, now).await?;
    Ok(since.map(|since| now.0.saturating_sub(since).max(0)))
}
