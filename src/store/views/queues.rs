//! Queues: which there are, how many tasks they have in each state, what stands ready.

use std::collections::{BTreeMap, BTreeSet};

use deadpool_redis::redis::{Value, cmd, pipe};
use futures_util::future::try_join_all;

use crate::domain::id::TaskId;
use crate::domain::limits;
use crate::domain::queue::{QueueName, Settings};
use crate::domain::slot::Slot;
use crate::domain::state::State;
use crate::store::error::Result;
use crate::store::reply::{Items, bytes, int, items, number, text};
use crate::store::shard::{Shard, Store};

/// How many tasks: `submitted` is the sum of all the others.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
#[allow(missing_docs)]
pub struct Counts {
    pub submitted: i64,
    pub scheduled: i64,
    pub ready: i64,
    pub leased: i64,
    pub completed: i64,
    pub dead: i64,
    pub cancelled: i64,
    pub expired: i64,
    pub removed: i64,
}

impl Counts {
    /// The names of the counts, as they stand in Redis.
    pub const NAMES: [&'static str; 9] =
        ["submitted", "scheduled", "ready", "leased", "completed", "dead", "cancelled", "expired", "removed"];

    fn each(&mut self) -> [&mut i64; 9] {
        let Counts { submitted, scheduled, ready, leased, completed, dead, cancelled, expired, removed } = self;
        [submitted, scheduled, ready, leased, completed, dead, cancelled, expired, removed]
    }

    /// Those in one state.
    pub fn of(&self, state: State) -> i64 {
        match state {
            State::Scheduled => self.scheduled,
            State::Ready => self.ready,
            State::Leased => self.leased,
            State::Completed => self.completed,
            State::Dead => self.dead,
            State::Cancelled => self.cancelled,
            State::Expired => self.expired,
        }
    }

    /// Adds the counts of another queue or shard.
    pub fn join(&mut self, mut other: Counts) {
        for (sum, count) in self.each().into_iter().zip(other.each()) {
            *sum = sum.saturating_add(*count);
        }
    }

    /// Adds an answer to HMGET of [`Counts::NAMES`].
    pub(in crate::store) fn add(&mut self, answer: Value) -> Result<()> {
        for (count, value) in self.each().into_iter().zip(items(answer)?) {
            if let Value::BulkString(digits) = value {
                *count = count.saturating_add(number(&digits).unwrap_or(0));
            }
        }
        Ok(())
    }
}

/// A queue as it stands.
#[derive(Clone, Debug)]
pub struct Queue {
    /// Its name.
    pub name: QueueName,
    /// What is set of it.
    pub settings: Settings,
    /// Its tasks.
    pub counts: Counts,
    /// For how long the oldest ready task has been so, ms. Exact up to 1000 slots with ready tasks in a shard;
    /// beyond, of those whose turn is next.
    pub oldest_ready_age_ms: Option<i64>,
}

/// The queue; `None` where nobody has submitted to it or set anything of it.
pub async fn queue(store: &Store, name: &QueueName) -> Result<Option<Queue>> {
    let parts = try_join_all(store.shards().iter().map(|shard| part(shard, name))).await?;
    let mut queue = Queue {
        name: name.clone(),
        settings: Settings::default(),
        counts: Counts::default(),
        oldest_ready_age_ms: None,
    };
    let mut known = false;
    for part in parts {
        known |= part.known;
        queue.settings.paused |= part.paused;
        queue.counts.join(part.counts);
        queue.oldest_ready_age_ms = queue.oldest_ready_age_ms.max(part.oldest_ready_age_ms);
    }
    Ok(known.then_some(queue))
}

struct Part {
    known: bool,
    paused: bool,
    counts: Counts,
    oldest_ready_age_ms: Option<i64>,
}

async fn part(shard: &Shard, name: &QueueName) -> Result<Part> {
    let mut pipeline = pipe();
    pipeline.cmd("ZSCORE").arg(shard.keys.queues()).arg(name.as_str());
    pipeline.cmd("HGET").arg(shard.keys.queue(name)).arg("paused");
    pipeline.cmd("HMGET").arg(shard.keys.count(name)).arg(&Counts::NAMES);
    pipeline.cmd("ZRANGE").arg(shard.keys.wheel(name)).arg(0).arg(999);
    let mut answers = shard.read(&pipeline).await?.into_iter();
    let mut next = || answers.next().unwrap_or(Value::Nil);
    let known = !matches!(next(), Value::Nil);
    let paused = matches!(next(), Value::BulkString(flag) if flag == b"1");
    let mut counts = Counts::default();
    counts.add(next())?;
    let entries: Vec<String> = items(next())?.map(text).collect::<Result<_>>()?;
    let oldest_ready_age_ms = match oldest_since(shard, name, &entries).await? {
        Some(since) => Some(super::horizon::horizon(shard).await?.now.0.saturating_sub(since).max(0)),
        None => None,
    };
    Ok(Part { known, paused, counts, oldest_ready_age_ms })
}

/// Since when a task has stood in its place: from the fields r, c and i.
fn in_place_since(fields: Items) -> Option<i64> {
    let mut fields = fields.map(|value| bytes(value).unwrap_or_default());
    let [ready, created, given_back] = [(); 3].map(|()| fields.next().unwrap_or_default());
    let mut given_back = given_back.splitn(2, |&byte| byte == b' ');
    let holds = given_back.next() == Some(&*ready);
    let since = given_back.next().filter(|_| holds);
    number(since.unwrap_or(&ready)).or_else(|| number(&created))
}

/// Since when the oldest among the first tasks of these entries of the wheel has been ready, ms by Redis' clock. One that
/// was given back to its place counts from when it came there first: those behind it have waited as long.
pub(super) async fn oldest_since(shard: &Shard, name: &QueueName, entries: &[String]) -> Result<Option<i64>> {
    let mut heads = pipe();
    for entry in entries {
        let (priority, slot) = entry.split_once(':').unwrap_or_default();
        let slot = slot.parse().ok().and_then(Slot::new);
        if let (Ok(priority), Some(slot)) = (priority.parse(), slot) {
            heads.cmd("ZRANGE").arg(shard.keys.slot(name, priority, slot)).arg(0).arg(0);
        }
    }
    if heads.is_empty() {
        return Ok(None);
    }
    let mut times = pipe();
    for head in shard.read(&heads).await? {
        for id in items(head)? {
            if let Some(id) = TaskId::from_bytes(&bytes(id)?) {
                times.cmd("HMGET").arg(shard.keys.task(&id)).arg(&["r", "c", "i"]);
            }
        }
    }
    if times.is_empty() {
        return Ok(None);
    }
    let mut first = None;
    for answer in shard.read(&times).await? {
        let since = in_place_since(items(answer)?);
        first = match (first, since) {
            (Some(first), Some(since)) => Some(std::cmp::min(first, since)),
            (first, since) => first.or(since),
        };
    }
    Ok(first)
}

/// Names of queues behind `after`, in their order, at most `limit`.
pub async fn names(store: &Store, after: Option<&QueueName>, limit: usize) -> Result<Vec<QueueName>> {
    let looks = store.shards().iter().map(|shard| async move {
        let mut command = cmd("ZRANGEBYLEX");
        let from = after.map_or("-".to_owned(), |name| format!("({name}"));
        command.arg(shard.keys.queues()).arg(from).arg("+").arg(&["LIMIT", "0"]).arg(limit);
        items(shard.send(&command).await?)
    });
    let mut names = BTreeSet::new();
    for list in try_join_all(looks).await? {
        names.extend(list.filter_map(|name| QueueName::parse(&text(name).ok()?)));
    }
    Ok(names.into_iter().take(limit).collect())
}

/// Of `queues`, those with tasks that can be claimed in this shard now, with the priority at the front.
pub async fn ready(shard: &Shard, queues: &[QueueName]) -> Result<Vec<(QueueName, u8)>> {
    let mut found = Vec::new();
    for chunk in queues.chunks(limits::CALL_ITEMS) {
        let mut command = cmd("ZMSCORE");
        command.arg(shard.keys.ready());
        for queue in chunk {
            command.arg(queue.as_str());
        }
        for (queue, score) in chunk.iter().zip(items(shard.send(&command).await?)?) {
            if !matches!(score, Value::Nil) {
                found.push((queue.clone(), u8::try_from(int(score)?).unwrap_or(0)));
            }
        }
    }
    Ok(found)
}

/// The counts of the whole shard.
pub async fn totals(shard: &Shard) -> Result<Counts> {
    let mut counts = Counts::default();
    counts.add(shard.send(cmd("HMGET").arg(shard.keys.total()).arg(&Counts::NAMES)).await?)?;
    Ok(counts)
}

/// Master copies of settings behind `after`, at most `limit`: name, version, settings.
pub async fn settings(
    store: &Store,
    after: Option<&QueueName>,
    limit: usize,
) -> Result<Vec<(QueueName, i64, Settings)>> {
    let home = store.home();
    let from = after.map_or("-".to_owned(), |name| format!("({name}"));
    let mut command = cmd("ZRANGEBYLEX");
    command.arg(home.keys.configured()).arg(from).arg("+").arg(&["LIMIT", "0"]).arg(limit);
    let list = items(home.send(&command).await?)?;
    let names: Vec<QueueName> = list.filter_map(|name| QueueName::parse(&text(name).ok()?)).collect();
    versions(home, &names, |name| home.keys.settings(name)).await
}

/// The shard's copies of the settings of these queues; those it has.
pub async fn copies(shard: &Shard, names: &[QueueName]) -> Result<BTreeMap<QueueName, i64>> {
    let found = versions(shard, names, |name| shard.keys.queue(name)).await?;
    Ok(found.into_iter().map(|(name, version, _)| (name, version)).collect())
}

async fn versions(
    shard: &Shard,
    names: &[QueueName],
    key: impl Fn(&QueueName) -> Vec<u8>,
) -> Result<Vec<(QueueName, i64, Settings)>> {
    if names.is_empty() {
        return Ok(Vec::new());
    }
    let mut pipeline = pipe();
    for name in names {
        pipeline.cmd("HMGET").arg(key(name)).arg(&["version", "paused"]);
    }
    let mut found = Vec::new();
    for (name, answer) in names.iter().zip(shard.read(&pipeline).await?) {
        let mut fields = items(answer)?;
        let version = fields.value()?;
        if matches!(version, Value::Nil) {
            continue;
        }
        let paused = matches!(fields.value()?, Value::BulkString(flag) if flag == b"1");
        found.push((name.clone(), int(version)?, Settings { paused }));
    }
    Ok(found)
}

/// Tasks of the queue in `state` that a purge may take next, at most `limit` (at least 1).
pub async fn purgeable(shard: &Shard, queue: &QueueName, state: State, limit: usize) -> Result<Vec<TaskId>> {
    if state == State::Ready {
        return first_ready(shard, queue, limit).await;
    }
    let places = super::page::by_time(shard, queue, state, None, limit).await?;
    Ok(places.into_iter().map(|place| place.id).collect())
}

async fn first_ready(shard: &Shard, queue: &QueueName, limit: usize) -> Result<Vec<TaskId>> {
    let mut ids = Vec::new();
    let wheel = items(shard.send(cmd("ZRANGE").arg(shard.keys.wheel(queue)).arg(0).arg(limit - 1)).await?)?;
    for entry in wheel {
        let entry = text(entry)?;
        let (priority, slot) = entry.split_once(':').unwrap_or_default();
        let (Ok(priority), Some(slot)) = (priority.parse(), slot.parse().ok().and_then(Slot::new)) else { continue };
        let key = shard.keys.slot(queue, priority, slot);
        let list = items(shard.send(cmd("ZRANGE").arg(key).arg(0).arg(limit - ids.len() - 1)).await?)?;
        ids.extend(list.filter_map(|id| TaskId::from_bytes(&crate::store::reply::bytes(id).ok()?)));
        if ids.len() >= limit {
            break;
        }
    }
    Ok(ids)
}
