//! The data set at a glance, for a monitoring system: first what all shards say at once, then its queues. The work is
//! bounded, whatever the number of queues and tasks: a shard is asked for a few pages of names, for the counts of those,
//! and for the age of first tasks.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet};

use deadpool_redis::redis::{Value, pipe};
use futures_util::future::{try_join, try_join_all};

use super::next_due::next_due;
use super::queues::{Counts, oldest_queued_since};
use crate::domain::queue::QueueName;
use crate::domain::time::TimestampMs;
use crate::store::error::Result;
use crate::store::redis::reply::{ReplyReader, int, read_list, text};
use crate::store::shard::{Shard, Store};

/// Queues shown at most.
pub const MAX_QUEUES: usize = 100;
/// Where there are more: of so many, in all shards together, it is found out how much they have. Of each shard at least
/// four are among them.
const MAX_CANDIDATES: usize = 1000;
/// First tasks whose age is looked at, in all shards together.
const MAX_HEADS: usize = 2048;
/// Slots of one queue that are looked at in one shard.
const MAX_SLOTS_PER_QUEUE: usize = 1000;
/// Queues in one pipeline: others get their turn between two.
const QUEUES_PER_PIPELINE: usize = 50;

/// What there is.
#[derive(Debug)]
pub struct DatasetStats {
    /// Tasks of all queues.
    pub totals: Counts,
    /// For how long the first thing that upkeep has to do has been due, ms; 0: nothing is.
    pub overdue_ms: i64,
    shards: Vec<ShardStats>,
}

/// Queues, one by one.
#[derive(Debug)]
pub struct QueueStatsList {
    /// By name. If there are more than [`QUEUES`], the candidates with the most tasks that wait or are leased, then the
    /// first by name. In each shard these are candidates, a quarter, a quarter and a half: of the queues with something
    /// to claim those of the best and those of the least priority (of one priority the last and the first by name), and
    /// those with something due first. A paused queue has nothing to claim.
    pub queues: Vec<QueueStats>,
    /// Whether there are more queues than are shown.
    pub truncated: bool,
}

/// One queue.
#[derive(Clone, Debug)]
pub struct QueueStats {
    /// Its name.
    pub name: QueueName,
    /// Its tasks.
    pub counts: Counts,
    /// Whether its tasks are not handed out.
    pub paused: bool,
    /// For how long the oldest ready task has been so, ms. Exact where 2048 looks suffice for the slots of all queues
    /// that have ready tasks; beyond, of those whose turn is next and those whose turn is last.
    pub oldest_ready_age_ms: Option<i64>,
}

/// What a shard says at first.
#[derive(Debug)]
struct ShardStats {
    now: TimestampMs,
    overdue_ms: i64,
    totals: Counts,
    /// The first by name, one more than are shown.
    first_queues: Vec<QueueName>,
    /// The candidates.
    candidates: BTreeSet<QueueName>,
}

/// Asks all shards at once.
pub async fn dataset_stats(store: &Store) -> Result<DatasetStats> {
    let shards = store.shards();
    let quarter = (MAX_CANDIDATES / 4 / shards.len()).max(1);
    let parts = try_join_all(shards.iter().map(|shard| shard_stats(shard, quarter))).await?;
    let mut stats = DatasetStats { totals: Counts::default(), overdue_ms: 0, shards: Vec::new() };
    for part in &parts {
        stats.totals.join(part.totals);
        stats.overdue_ms = stats.overdue_ms.max(part.overdue_ms);
    }
    Ok(DatasetStats { shards: parts, ..stats })
}

impl DatasetStats {
    /// Asks for its queues, some 20 times one after another where there are many.
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

async fn shard_stats(shard: &Shard, quarter: usize) -> Result<ShardStats> {
    let mut pipeline = pipe();
    pipeline.cmd("HMGET").arg(shard.keys.shard_counts()).arg(&Counts::FIELDS);
    pipeline.cmd("ZRANGE").arg(shard.keys.queues()).arg(0).arg(MAX_QUEUES);
    pipeline.cmd("ZRANGE").arg(shard.keys.ready()).arg(0).arg(quarter - 1).arg("REV");
    pipeline.cmd("ZRANGE").arg(shard.keys.ready()).arg(0).arg(quarter - 1);
    pipeline.cmd("ZRANGE").arg(shard.keys.due()).arg(0).arg(2 * quarter - 1);
    let (upcoming, answers) = try_join(next_due(shard), shard.send_pipeline(&pipeline)).await?;
    let mut answers = answers.into_iter();
    let mut next_answer = || answers.next().unwrap_or(Value::Nil);
    let mut totals = Counts::default();
    totals.add_reply(next_answer())?;
    let first_queues = queue_names(read_list(next_answer())?).collect();
    let mut candidates = BTreeSet::new();
    for _ in 0..3 {
        candidates.extend(queue_names(read_list(next_answer())?));
    }
    let due = [upcoming.due_at, upcoming.expires_at, upcoming.retention_ends_at].into_iter().flatten().min();
    let overdue_ms = due.map_or(0, |due| upcoming.now.0.saturating_sub(due.0).max(0));
    Ok(ShardStats { now: upcoming.now, overdue_ms, totals, first_queues, candidates })
}

fn queue_names(list: ReplyReader) -> impl Iterator<Item = QueueName> {
    list.filter_map(|name| QueueName::parse(&text(name).ok()?))
}

/// Of the candidates those with the most tasks that wait or are leased, in the shards in which they are candidates.
async fn largest(store: &Store, looks: &[ShardStats]) -> Result<BTreeSet<QueueName>> {
    let reads = store.shards().iter().zip(looks).map(|(shard, look)| async move {
        let candidates: Vec<&QueueName> = look.candidates.iter().collect();
        let mut found = Vec::new();
        for chunk in candidates.chunks(QUEUES_PER_PIPELINE) {
            let mut pipeline = pipe();
            for name in chunk {
                pipeline.cmd("HMGET").arg(shard.keys.queue_counts(name)).arg(&["scheduled", "ready", "leased"]);
            }
            for (name, answer) in chunk.iter().zip(shard.send_pipeline(&pipeline).await?) {
                let counts = read_list(answer)?.map(|count| int(count).unwrap_or(0));
                found.push(((*name).clone(), counts.sum::<i64>()));
            }
        }
        crate::store::Result::Ok(found)
    });
    let mut sums: BTreeMap<QueueName, i64> = BTreeMap::new();
    for (name, count) in try_join_all(reads).await?.into_iter().flatten() {
        *sums.entry(name).or_default() += count;
    }
    let mut sums: Vec<(QueueName, i64)> = sums.into_iter().collect();
    // The sort is stable: equal ones stay in the order of their names.
    sums.sort_by_key(|(_, count)| Reverse(*count));
    Ok(sums.into_iter().take(MAX_QUEUES).map(|(name, _)| name).collect())
}

async fn read_queue_stats(store: &Store, looks: &[ShardStats], shown: Vec<QueueName>) -> Result<Vec<QueueStats>> {
    let parts = store.shards().iter().map(|shard| read_counts(shard, &shown));
    let (parts, paused) = try_join(try_join_all(parts), read_paused(store.first_shard(), &shown)).await?;
    let nonempty = parts.iter().flatten().filter(|counts| counts.ready > 0).count();
    let slots = (MAX_HEADS / nonempty.max(1)).clamp(2, MAX_SLOTS_PER_QUEUE);
    let age_reads = store.shards().iter().zip(looks).zip(&parts).map(|((shard, look), part)| {
        let queues = shown.iter().zip(part).map(move |(name, counts)| async move {
            match counts.ready > 0 {
                true => oldest_ready_age_ms(shard, look.now, name, slots).await,
                false => Ok(None),
            }
        });
        try_join_all(queues)
    });
    let ages = try_join_all(age_reads).await?;
    let mut depths: Vec<QueueStats> = Vec::with_capacity(shown.len());
    for (name, paused) in shown.into_iter().zip(paused) {
        depths.push(QueueStats { name, counts: Counts::default(), paused, oldest_ready_age_ms: None });
    }
    for (part, ages) in parts.into_iter().zip(ages) {
        for ((depth, counts), age) in depths.iter_mut().zip(part).zip(ages) {
            depth.counts.join(counts);
            depth.oldest_ready_age_ms = depth.oldest_ready_age_ms.max(age);
        }
    }
    Ok(depths)
}

/// The counts of these queues in the shard.
async fn read_counts(shard: &Shard, queues: &[QueueName]) -> Result<Vec<Counts>> {
    let mut found = Vec::with_capacity(queues.len());
    for chunk in queues.chunks(QUEUES_PER_PIPELINE) {
        let mut pipeline = pipe();
        for name in chunk {
            pipeline.cmd("HMGET").arg(shard.keys.queue_counts(name)).arg(&Counts::FIELDS);
        }
        for counted in shard.send_pipeline(&pipeline).await? {
            let mut counts = Counts::default();
            counts.add_reply(counted)?;
            found.push(counts);
        }
    }
    Ok(found)
}

/// Whether these queues are paused, as the master copies of their settings say.
async fn read_paused(home: &Shard, queues: &[QueueName]) -> Result<Vec<bool>> {
    let mut found = Vec::with_capacity(queues.len());
    for chunk in queues.chunks(QUEUES_PER_PIPELINE) {
        let mut pipeline = pipe();
        for name in chunk {
            pipeline.cmd("HGET").arg(home.keys.settings(name)).arg("paused");
        }
        let flags = home.send_pipeline(&pipeline).await?.into_iter();
        found.extend(flags.map(|flag| matches!(flag, Value::BulkString(flag) if flag == b"1")));
    }
    Ok(found)
}

async fn oldest_ready_age_ms(shard: &Shard, now: TimestampMs, queue: &QueueName, slots: usize) -> Result<Option<i64>> {
    // The wheel begins with the best priority: who waits longest may well stand at its end.
    let half = i64::try_from(slots / 2).unwrap_or(i64::MAX);
    let mut pipeline = pipe();
    pipeline.cmd("ZRANGE").arg(shard.keys.wheel(queue)).arg(0).arg(half - 1);
    pipeline.cmd("ZRANGE").arg(shard.keys.wheel(queue)).arg(-half).arg(-1);
    let mut entries = BTreeSet::new();
    for answer in shard.send_pipeline(&pipeline).await? {
        for entry in read_list(answer)? {
            entries.insert(text(entry)?);
        }
    }
    let entries: Vec<String> = entries.into_iter().collect();
    let since = oldest_queued_since(shard, queue, &entries).await?;
    Ok(since.map(|since| now.0.saturating_sub(since).max(0)))
}
