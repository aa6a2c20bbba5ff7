//! Live workers: workers that a server saw recently, or that hold a lease.

use std::collections::{BTreeMap, HashMap, HashSet};

use deadpool_redis::redis::{Value, cmd, pipe};
use futures_util::future::try_join_all;

use crate::domain::id::TaskId;
use crate::domain::limits::{STATS_BUCKET_MS, WORKER_TIMEOUT_MS};
use crate::domain::queue::QueueName;
use crate::domain::time::TimestampMs;
use crate::domain::worker::Worker;
use crate::store::error::{Result, if_readable};
use crate::store::record::fields;
use crate::store::redis::reply::{bytes, decode_msgpack, int, parse_int, read_list, text};
use crate::store::shard::{Shard, Store};
use crate::store::task_hash::TaskHash;

/// The number of records read together.
const RECORDS_PER_READ: usize = 500;
const HELD_FIELDS: [&str; 2] = [fields::STATE, fields::LEASE];
/// The limits of a search for held leases: queues of a shard, and leases in all.
const MAX_QUEUES: usize = 1000;
const MAX_LEASES: usize = 10_000;

/// A live worker.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct LiveWorker {
    /// Its description.
    pub worker: Worker,
    /// The times at which a server saw it first and last. `None`: it is known only by its leases.
    pub seen: Option<(TimestampMs, TimestampMs)>,
    /// The larger of its declared concurrency and the most leases it held at once in the last 30 s. Only the latter,
    /// if no server saw it in that time.
    pub effective_concurrency: u64,
}

/// Returns the workers that were live at `at`, by name.
pub async fn live_workers(store: &Store, at: TimestampMs) -> Result<BTreeMap<String, LiveWorker>> {
    let max_held = max_leases_held(store, at).await?;
    let first_shard = store.first_shard();
    let mut command = cmd("ZRANGEBYSCORE");
    command.arg(first_shard.keys.workers_seen()).arg(at.0 - WORKER_TIMEOUT_MS).arg("+inf");
    let recent = read_list(first_shard.send(&command).await?)?.map(bytes).collect::<Result<Vec<_>>>()?;
    let mut live = read_workers(first_shard, &recent).await?;
    live.retain(|_, worker| worker.seen.is_some_and(|(first, _)| first <= at));
    // Workers with long tasks send nothing for a while: their last records.
    let silent = max_held.keys().filter(|name| !live.contains_key(*name));
    let silent: Vec<Vec<u8>> = silent.map(|name| Worker::name_digest(name).as_bytes().to_vec()).collect();
    for (name, worker) in read_workers(first_shard, &silent).await? {
        live.insert(name, LiveWorker { effective_concurrency: 0, ..worker });
    }
    for (name, most) in max_held {
        let unknown = || LiveWorker { worker: Worker::unknown(&name), seen: None, effective_concurrency: 0 };
        let worker = live.entry(name.clone()).or_insert_with(unknown);
        worker.effective_concurrency = worker.effective_concurrency.max(most);
    }
    Ok(live)
}

/// Returns the records of these workers by name.
async fn read_workers(first_shard: &Shard, ids: &[Vec<u8>]) -> Result<BTreeMap<String, LiveWorker>> {
    let mut known = BTreeMap::new();
    for page in ids.chunks(RECORDS_PER_READ) {
        for record in read_list(first_shard.send(cmd("HMGET").arg(first_shard.keys.workers()).arg(page)).await?)? {
            let Value::BulkString(record) = record else { continue };
            match decode(&record) {
                Some(found) => drop(known.insert(found.worker.name.clone(), found)),
                None => tracing::warn!("decoding a worker record failed"),
            }
        }
    }
    Ok(known)
}

/// Decodes `<first seen ms> <last seen ms> <last claim ms> <JSON>`.
fn decode(record: &[u8]) -> Option<LiveWorker> {
    let mut parts = record.splitn(4, |&byte| byte == b' ');
    let first = TimestampMs(parse_int(parts.next()?)?);
    let last = TimestampMs(parse_int(parts.next()?)?);
    let worker: Worker = serde_json::from_slice(parts.nth(1)?).ok()?;
    let concurrency = u64::from(worker.concurrency);
    Some(LiveWorker { worker, seen: Some((first, last)), effective_concurrency: concurrency })
}

/// Returns the most leases that each worker held at once in the last 30 s. Samples of several shards add up if they are
/// of the same time.
async fn max_leases_held(store: &Store, at: TimestampMs) -> Result<HashMap<String, u64>> {
    let last = (at.0 - 1).div_euclid(STATS_BUCKET_MS);
    let buckets = last - WORKER_TIMEOUT_MS / STATS_BUCKET_MS + 1..=last;
    let reads = store.shards().iter().map(|shard| async move {
        let mut command = cmd("HGETALL");
        command.arg(shard.keys.lease_samples());
        shard.send(&command).await
    });
    let mut samples: HashMap<(i64, String), u64> = HashMap::new();
    for reply in try_join_all(reads).await? {
        let mut fields = match reply {
            Value::Map(pairs) => pairs.into_iter().flat_map(|(field, value)| [field, value]).collect::<Vec<_>>(),
            other => read_list(other)?.collect(),
        }
        .into_iter();
        while let (Some(bucket), Some(packed)) = (fields.next(), fields.next()) {
            if !if_readable(int(bucket))?.is_some_and(|bucket| buckets.contains(&bucket)) {
                continue;
            }
            let Some(mut holders) = if_readable(decode_msgpack(packed).and_then(read_list))? else { continue };
            let Some(at) = if_readable(holders.int())? else { continue };
            while let Some((name, held)) = if_readable(holders.text().and_then(|name| Ok((name, holders.int()?))))? {
                *samples.entry((at, name)).or_default() += u64::try_from(held).unwrap_or(0);
            }
        }
    }
    let mut most: HashMap<String, u64> = HashMap::new();
    for ((_, name), held) in samples {
        let known = most.entry(name).or_default();
        *known = held.max(*known);
    }
    Ok(most)
}

/// A lease that a worker holds.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct HeldTask {
    /// The task.
    pub id: TaskId,
    /// Its queue.
    pub queue: QueueName,
    /// The time at which the lease expires.
    pub lease_until: TimestampMs,
}

/// Returns the leases of these workers that are live at `now`, in order of expiry, and whether that is all. At most 10,000
/// leases are searched.
pub async fn held_tasks(
    store: &Store,
    names: &HashSet<&str>,
    now: TimestampMs,
) -> Result<(HashMap<String, Vec<HeldTask>>, bool)> {
    let mut found: HashMap<String, Vec<HeldTask>> = HashMap::new();
    let (mut leases_left, mut is_complete) = (MAX_LEASES, true);
    if names.is_empty() {
        return Ok((found, is_complete));
    }
    for shard in store.shards() {
        let due = read_list(shard.send(cmd("ZRANGE").arg(shard.keys.due()).arg(0).arg(MAX_QUEUES)).await?)?;
        is_complete &= due.len() <= MAX_QUEUES;
        let queues = due.take(MAX_QUEUES).map(text);
        let queues = queues.filter_map(|name| name.map(|name| QueueName::parse(&name)).transpose());
        for queues in queues.collect::<Result<Vec<_>>>()?.chunks(RECORDS_PER_READ) {
            let mut pipeline = pipe();
            for queue in queues {
                pipeline.cmd("ZCARD").arg(shard.keys.leased(queue));
            }
            for (queue, leases) in queues.iter().zip(shard.send_pipeline(&pipeline).await?) {
                // Most due queues have only scheduled tasks.
                let Some(leases) = if_readable(int(leases))? else {
                    is_complete = false;
                    continue;
                };
                let leases = usize::try_from(leases).unwrap_or(0);
                is_complete &= leases <= leases_left;
                if leases == 0 || leases_left == 0 {
                    continue;
                }
                let mut command = cmd("ZRANGE");
                command.arg(shard.keys.leased(queue)).arg(0).arg(leases_left - 1).arg("WITHSCORES");
                leases_left -= add_held_tasks(shard, queue, shard.send(&command).await?, names, &mut found).await?;
            }
        }
    }
    // An expired lease is lost, though upkeep has not ended it yet.
    found.values_mut().for_each(|held| {
        held.retain(|holding| holding.lease_until > now);
        held.sort_by_key(|holding| holding.lease_until);
    });
    Ok((found, is_complete))
}

/// Adds the leases of one queue. Returns the number of leases searched.
async fn add_held_tasks(
    shard: &Shard,
    queue: &QueueName,
    leases: Value,
    names: &HashSet<&str>,
    found: &mut HashMap<String, Vec<HeldTask>>,
) -> Result<usize> {
    let mut leased = Vec::new();
    let mut leases = read_list(leases)?;
    while leases.len() > 0 {
        let (id, until) = (leases.bytes()?, TimestampMs(leases.int()?));
        leased.extend(TaskId::from_bytes(&id).map(|id| (id, until)));
    }
    for page in leased.chunks(RECORDS_PER_READ) {
        let mut pipeline = pipe();
        for (id, _) in page {
            pipeline.cmd("HMGET").arg(shard.keys.task(id)).arg(&HELD_FIELDS);
        }
        for ((id, until), reply) in page.iter().zip(shard.send_pipeline(&pipeline).await?) {
            let Some(task) = if_readable(TaskHash::parse_named(*id, &HELD_FIELDS, reply))?.flatten() else { continue };
            let worker = task.worker();
            if task.text(fields::STATE) == Some("leased") && names.contains(&*worker) {
                let holding = HeldTask { id: *id, queue: queue.clone(), lease_until: *until };
                found.entry(worker).or_default().push(holding);
            }
        }
    }
    Ok(leased.len())
}
