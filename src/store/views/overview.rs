//! The data set at a glance, for a monitoring system: first what all shards say at once, then its queues. The work is
//! bounded, whatever the number of queues and tasks: a shard is asked for a few pages of names, for the counts of those,
//! and for the age of first tasks.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet};

use deadpool_redis::redis::{Value, pipe};
use futures_util::future::{try_join, try_join_all};

use super::horizon::horizon;
use super::queues::{Counts, oldest_since};
use crate::domain::queue::QueueName;
use crate::domain::time::Millis;
use crate::store::error::Result;
use crate::store::reply::{Items, int, items, text};
use crate::store::shard::{Shard, Store};

/// Queues shown at most.
pub const QUEUES: usize = 100;
/// Where there are more: of so many, in all shards together, it is found out how much they have. Of each shard at least
/// four are among them.
const CANDIDATES: usize = 1000;
/// First tasks whose age is looked at, in all shards together.
const HEADS: usize = 2048;
/// Slots of one queue that are looked at in one shard.
const SLOTS: usize = 1000;
/// Queues in one pipeline: others get their turn between two.
const CHUNK: usize = 50;

/// What there is.
#[derive(Debug)]
pub struct Overview {
    /// Tasks of all queues.
    pub totals: Counts,
    /// For how long the first thing that upkeep has to do has been due, ms; 0: nothing is.
    pub overdue_ms: i64,
    looks: Vec<Look>,
}

/// Queues, one by one.
#[derive(Debug)]
pub struct Depths {
    /// By name. If there are more than [`QUEUES`], the candidates with the most tasks that wait or are leased, then the
    /// first by name. In each shard these are candidates, a quarter, a quarter and a half: of the queues with something
    /// to claim those of the best and those of the least priority (of one priority the last and the first by name), and
    /// those with something due first. A paused queue has nothing to claim.
    pub queues: Vec<Depth>,
    /// Whether there are more queues than are shown.
    pub truncated: bool,
}

/// One queue.
#[derive(Clone, Debug)]
pub struct Depth {
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
struct Look {
    now: Millis,
    overdue_ms: i64,
    totals: Counts,
    /// The first by name, one more than are shown.
    first: Vec<QueueName>,
    /// The candidates.
    busy: BTreeSet<QueueName>,
}

/// Asks all shards at once.
pub async fn overview(store: &Store) -> Result<Overview> {
    let shards = store.shards();
    let quarter = (CANDIDATES / 4 / shards.len()).max(1);
    let looks = try_join_all(shards.iter().map(|shard| look(shard, quarter))).await?;
    let mut overview = Overview { totals: Counts::default(), overdue_ms: 0, looks: Vec::new() };
    for look in &looks {
        overview.totals.join(look.totals);
        overview.overdue_ms = overview.overdue_ms.max(look.overdue_ms);
    }
    Ok(Overview { looks, ..overview })
}

impl Overview {
    /// Asks for its queues, some 20 times one after another where there are many.
    pub async fn depths(&self, store: &Store) -> Result<Depths> {
        let first: BTreeSet<&QueueName> = self.looks.iter().flat_map(|look| &look.first).collect();
        let truncated = first.len() > QUEUES;
        let shown: BTreeSet<QueueName> = match truncated {
            false => first.into_iter().cloned().collect(),
            true => {
                let most = fullest(store, &self.looks).await?;
                let rest = first.into_iter().filter(|name| !most.contains(*name)).take(QUEUES - most.len()).cloned();
                rest.collect::<Vec<_>>().into_iter().chain(most.iter().cloned()).collect()
            }
        };
        Ok(Depths { queues: depths(store, &self.looks, shown.into_iter().collect()).await?, truncated })
    }
}

async fn look(shard: &Shard, quarter: usize) -> Result<Look> {
    let mut pipeline = pipe();
    pipeline.cmd("HMGET").arg(shard.keys.total()).arg(&Counts::NAMES);
    pipeline.cmd("ZRANGE").arg(shard.keys.queues()).arg(0).arg(QUEUES);
    pipeline.cmd("ZRANGE").arg(shard.keys.ready()).arg(0).arg(quarter - 1).arg("REV");
    pipeline.cmd("ZRANGE").arg(shard.keys.ready()).arg(0).arg(quarter - 1);
    pipeline.cmd("ZRANGE").arg(shard.keys.due()).arg(0).arg(2 * quarter - 1);
    let (seen, answers) = try_join(horizon(shard), shard.read(&pipeline)).await?;
    let mut answers = answers.into_iter();
    let mut next = || answers.next().unwrap_or(Value::Nil);
    let mut totals = Counts::default();
    totals.add(next())?;
    let first = names(items(next())?).collect();
    let mut busy = BTreeSet::new();
    for _ in 0..3 {
        busy.extend(names(items(next())?));
    }
    let due = [seen.due, seen.deadline, seen.retain].into_iter().flatten().min();
    let overdue_ms = due.map_or(0, |due| seen.now.0.saturating_sub(due.0).max(0));
    Ok(Look { now: seen.now, overdue_ms, totals, first, busy })
}

fn names(list: Items) -> impl Iterator<Item = QueueName> {
    list.filter_map(|name| QueueName::parse(&text(name).ok()?))
}

/// Of the candidates those with the most tasks that wait or are leased, in the shards in which they are candidates.
async fn fullest(store: &Store, looks: &[Look]) -> Result<BTreeSet<QueueName>> {
    let reads = store.shards().iter().zip(looks).map(|(shard, look)| async move {
        let busy: Vec<&QueueName> = look.busy.iter().collect();
        let mut found = Vec::new();
        for chunk in busy.chunks(CHUNK) {
            let mut pipeline = pipe();
            for name in chunk {
                pipeline.cmd("HMGET").arg(shard.keys.count(name)).arg(&["scheduled", "ready", "leased"]);
            }
            for (name, answer) in chunk.iter().zip(shard.read(&pipeline).await?) {
                let counts = items(answer)?.map(|count| int(count).unwrap_or(0));
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
    Ok(sums.into_iter().take(QUEUES).map(|(name, _)| name).collect())
}

async fn depths(store: &Store, looks: &[Look], shown: Vec<QueueName>) -> Result<Vec<Depth>> {
    let parts = store.shards().iter().map(|shard| counts(shard, &shown));
    let (parts, paused) = try_join(try_join_all(parts), paused(store.home(), &shown)).await?;
    let pairs = parts.iter().flatten().filter(|counts| counts.ready > 0).count();
    let slots = (HEADS / pairs.max(1)).clamp(2, SLOTS);
    let ages = store.shards().iter().zip(looks).zip(&parts).map(|((shard, look), part)| {
        let queues = shown.iter().zip(part).map(move |(name, counts)| async move {
            match counts.ready > 0 {
                true => age(shard, look.now, name, slots).await,
                false => Ok(None),
            }
        });
        try_join_all(queues)
    });
    let ages = try_join_all(ages).await?;
    let mut depths: Vec<Depth> = Vec::with_capacity(shown.len());
    for (name, paused) in shown.into_iter().zip(paused) {
        depths.push(Depth { name, counts: Counts::default(), paused, oldest_ready_age_ms: None });
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
async fn counts(shard: &Shard, queues: &[QueueName]) -> Result<Vec<Counts>> {
    let mut found = Vec::with_capacity(queues.len());
    for chunk in queues.chunks(CHUNK) {
        let mut pipeline = pipe();
        for name in chunk {
            pipeline.cmd("HMGET").arg(shard.keys.count(name)).arg(&Counts::NAMES);
        }
        for counted in shard.read(&pipeline).await? {
            let mut counts = Counts::default();
            counts.add(counted)?;
            found.push(counts);
        }
    }
    Ok(found)
}

/// Whether these queues are paused, as the master copies of their settings say.
async fn paused(home: &Shard, queues: &[QueueName]) -> Result<Vec<bool>> {
    let mut found = Vec::with_capacity(queues.len());
    for chunk in queues.chunks(CHUNK) {
        let mut pipeline = pipe();
        for name in chunk {
            pipeline.cmd("HGET").arg(home.keys.settings(name)).arg("paused");
        }
        let flags = home.read(&pipeline).await?.into_iter();
        found.extend(flags.map(|flag| matches!(flag, Value::BulkString(flag) if flag == b"1")));
    }
    Ok(found)
}

async fn age(shard: &Shard, now: Millis, queue: &QueueName, slots: usize) -> Result<Option<i64>> {
    // The wheel begins with the best priority: who waits longest may well stand at its end.
    let half = i64::try_from(slots / 2).unwrap_or(i64::MAX);
    let mut pipeline = pipe();
    pipeline.cmd("ZRANGE").arg(shard.keys.wheel(queue)).arg(0).arg(half - 1);
    pipeline.cmd("ZRANGE").arg(shard.keys.wheel(queue)).arg(-half).arg(-1);
    let mut entries = BTreeSet::new();
    for end in shard.read(&pipeline).await? {
        for entry in items(end)? {
            entries.insert(text(entry)?);
        }
    }
    let entries: Vec<String> = entries.into_iter().collect();
    let since = oldest_since(shard, queue, &entries).await?;
    Ok(since.map(|since| now.0.saturating_sub(since).max(0)))
}
