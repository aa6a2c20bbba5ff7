//! Workers that are alive: seen by some server not long ago, or holding a lease.

use std::collections::{BTreeMap, HashMap, HashSet};

use deadpool_redis::redis::{Value, cmd, pipe};
use futures_util::future::try_join_all;

use crate::domain::id::TaskId;
use crate::domain::limits::{ALIVE_MS, STATS_BUCKET_MS};
use crate::domain::queue::QueueName;
use crate::domain::time::Millis;
use crate::domain::worker::Worker;
use crate::store::error::Result;
use crate::store::reply::{bytes, int, items, number, text, unpacked};
use crate::store::shard::{Shard, Store};

/// Records read at once.
const PAGE: usize = 500;
/// Queues of a shard looked into, and leases looked at, for what workers hold.
const QUEUES: usize = 1000;
const LEASES: usize = 10_000;

/// A worker that is alive.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Alive {
    /// What is known of it.
    pub worker: Worker,
    /// When a server first saw it, and when one last did; `None` if it is only known by what it holds.
    pub seen: Option<(Millis, Millis)>,
    /// How many tasks it can work at at once: what it says, or more if it was found to hold more within the last 30 s. One
    /// that was not seen within them counts for what it was found to hold.
    pub lanes: u64,
}

/// Those who were alive at `at`, by name.
pub async fn alive(store: &Store, at: Millis) -> Result<BTreeMap<String, Alive>> {
    let held = most_held(store, at).await?;
    let home = store.home();
    let mut command = cmd("ZRANGEBYSCORE");
    command.arg(home.keys.seen()).arg(at.0 - ALIVE_MS).arg("+inf");
    let here = items(home.send(&command).await?)?.map(bytes).collect::<Result<Vec<_>>>()?;
    let mut alive = known(home, &here).await?;
    alive.retain(|_, alive| alive.seen.is_some_and(|(first, _)| first <= at));
    // They work at what takes long: what was known of them when they were last heard of.
    let silent = held.keys().filter(|name| !alive.contains_key(*name));
    let silent: Vec<Vec<u8>> = silent.map(|name| Worker::who(name).as_bytes().to_vec()).collect();
    for (name, worker) in known(home, &silent).await? {
        alive.insert(name, Alive { lanes: 0, ..worker });
    }
    for (name, most) in held {
        let unknown = || Alive { worker: Worker::unknown(&name), seen: None, lanes: 0 };
        let alive = alive.entry(name.clone()).or_insert_with(unknown);
        alive.lanes = alive.lanes.max(most);
    }
    Ok(alive)
}

/// What is known of these workers, by name.
async fn known(home: &Shard, who: &[Vec<u8>]) -> Result<BTreeMap<String, Alive>> {
    let mut known = BTreeMap::new();
    for page in who.chunks(PAGE) {
        for record in items(home.send(cmd("HMGET").arg(home.keys.workers()).arg(page)).await?)? {
            let Value::BulkString(record) = record else { continue };
            match read(&record) {
                Some(found) => drop(known.insert(found.worker.name.clone(), found)),
                None => tracing::warn!("a record of a worker cannot be read"),
            }
        }
    }
    Ok(known)
}

/// `<first sight ms> <last sight ms> <last claim ms> <JSON>`
fn read(record: &[u8]) -> Option<Alive> {
    let mut parts = record.splitn(4, |&byte| byte == b' ');
    let first = Millis(number(parts.next()?)?);
    let last = Millis(number(parts.next()?)?);
    let worker: Worker = serde_json::from_slice(parts.nth(1)?).ok()?;
    let lanes = u64::from(worker.concurrency);
    Some(Alive { worker, seen: Some((first, last)), lanes })
}

/// The most leases that each worker was found to hold at once within the last 30 s. What was counted in several shards adds
/// up if it was held at one time.
async fn most_held(store: &Store, at: Millis) -> Result<HashMap<String, u64>> {
    let last = (at.0 - 1).div_euclid(STATS_BUCKET_MS);
    let buckets = last - ALIVE_MS / STATS_BUCKET_MS + 1..=last;
    let looks = store.shards().iter().map(|shard| async move {
        let mut command = cmd("HGETALL");
        command.arg(shard.keys.holders());
        shard.send(&command).await
    });
    let mut samples: HashMap<(i64, String), u64> = HashMap::new();
    for answer in try_join_all(looks).await? {
        let mut fields = match answer {
            Value::Map(pairs) => pairs.into_iter().flat_map(|(field, value)| [field, value]).collect::<Vec<_>>(),
            other => items(other)?.collect(),
        }
        .into_iter();
        while let (Some(bucket), Some(packed)) = (fields.next(), fields.next()) {
            let bucket = int(bucket)?;
            if !buckets.contains(&bucket) {
                continue;
            }
            let mut holders = items(unpacked(packed)?)?;
            let at = holders.int()?;
            while holders.len() > 0 {
                let (name, held) = (holders.text()?, holders.int()?);
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
pub struct Holding {
    /// The task.
    pub id: TaskId,
    /// Its queue.
    pub queue: QueueName,
    /// Until when it is the worker's.
    pub until: Millis,
}

/// What these workers hold now, each in the order in which leases end, and whether that is all: of the leases that there
/// are, 10,000 are looked at.
pub async fn holdings(store: &Store, names: &HashSet<&str>) -> Result<(HashMap<String, Vec<Holding>>, bool)> {
    let mut found: HashMap<String, Vec<Holding>> = HashMap::new();
    let (mut left, mut is_all) = (LEASES, true);
    if names.is_empty() {
        return Ok((found, is_all));
    }
    for shard in store.shards() {
        let due = items(shard.send(cmd("ZRANGE").arg(shard.keys.due()).arg(0).arg(QUEUES)).await?)?;
        is_all &= due.len() <= QUEUES;
        let queues = due.take(QUEUES).map(text);
        let queues = queues.filter_map(|name| name.map(|name| QueueName::parse(&name)).transpose());
        for queues in queues.collect::<Result<Vec<_>>>()?.chunks(PAGE) {
            let mut pipeline = pipe();
            for queue in queues {
                pipeline.cmd("ZCARD").arg(shard.keys.leased(queue));
            }
            for (queue, leases) in queues.iter().zip(shard.read(&pipeline).await?) {
                // Most of those in which something is due have only delayed tasks.
                let leases = usize::try_from(int(leases)?).unwrap_or(0);
                is_all &= leases <= left;
                if leases == 0 || left == 0 {
                    continue;
                }
                let mut command = cmd("ZRANGE");
                command.arg(shard.keys.leased(queue)).arg(0).arg(left - 1).arg("WITHSCORES");
                left -= in_queue(shard, queue, shard.send(&command).await?, names, &mut found).await?;
            }
        }
    }
    found.values_mut().for_each(|held| held.sort_by_key(|holding| holding.until));
    Ok((found, is_all))
}

/// Adds those of one queue; how many leases were looked at.
async fn in_queue(
    shard: &Shard,
    queue: &QueueName,
    leases: Value,
    names: &HashSet<&str>,
    found: &mut HashMap<String, Vec<Holding>>,
) -> Result<usize> {
    let mut leased = Vec::new();
    let mut leases = items(leases)?;
    while leases.len() > 0 {
        leased.push((leases.id()?, Millis(leases.int()?)));
    }
    for page in leased.chunks(PAGE) {
        let mut pipeline = pipe();
        for (id, _) in page {
            pipeline.cmd("HMGET").arg(shard.keys.task(id)).arg(&["S", "W"]);
        }
        for ((id, until), answer) in page.iter().zip(shard.read(&pipeline).await?) {
            let mut fields = items(answer)?;
            let (state, worker) = (fields.value()?, fields.value()?);
            let Value::BulkString(worker) = worker else { continue };
            let worker = String::from_utf8_lossy(&worker);
            if matches!(state, Value::BulkString(state) if state == b"leased") && names.contains(&*worker) {
                let holding = Holding { id: *id, queue: queue.clone(), until: *until };
                found.entry(worker.into_owned()).or_default().push(holding);
            }
        }
    }
    Ok(leased.len())
}
