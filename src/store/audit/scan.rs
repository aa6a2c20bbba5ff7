//! Reads a shard whole.

use std::collections::{BTreeMap, HashMap};

use deadpool_redis::redis::{Value, cmd, pipe};

use crate::domain::id::TaskId;
use crate::domain::queue::QueueName;
use crate::domain::slot::Slot;
use crate::domain::state::State;
use crate::store::error::Result;
use crate::store::keys::{Kind, PATTERNS};
use crate::store::record::Fields;
use crate::store::reply::{bytes, int, items, number, text};
use crate::store::shard::Shard;
use crate::store::views::queues::Counts;

/// What the audit needs of a task.
#[derive(Clone, Debug)]
pub(super) struct Seen {
    pub(super) queue: QueueName,
    pub(super) state: State,
    pub(super) slot: Slot,
    pub(super) priority: u8,
    pub(super) seq: i64,
    pub(super) run_at: Option<i64>,
    pub(super) lease_until: Option<i64>,
    pub(super) expires_at: Option<i64>,
    pub(super) finished_at: Option<i64>,
    pub(super) claim: Option<Vec<u8>>,
    pub(super) dedupe: Option<Vec<u8>>,
}

/// What stands under the name of one queue.
#[derive(Default, Debug)]
pub(super) struct QueueIndexes {
    /// (priority, slot) → id → seq
    pub(super) slots: BTreeMap<(u8, u16), HashMap<TaskId, i64>>,
    pub(super) wheel: BTreeMap<(u8, u16), i64>,
    pub(super) scheduled: HashMap<TaskId, i64>,
    pub(super) leased: HashMap<TaskId, i64>,
    pub(super) ended: BTreeMap<&'static str, HashMap<TaskId, i64>>,
    pub(super) counts: Counts,
    pub(super) paused: bool,
    /// Digest → holder, end of the window.
    pub(super) dedupe: HashMap<Vec<u8>, (Option<TaskId>, Option<i64>)>,
}

/// A shard's content.
#[derive(Default, Debug)]
pub(super) struct Content {
    pub(super) now: i64,
    pub(super) tasks: HashMap<TaskId, Seen>,
    pub(super) queues: BTreeMap<QueueName, QueueIndexes>,
    pub(super) listed: HashMap<String, i64>,
    pub(super) ready: HashMap<String, i64>,
    pub(super) due: HashMap<String, i64>,
    pub(super) deadline: HashMap<TaskId, i64>,
    pub(super) retain: HashMap<TaskId, i64>,
    pub(super) claims: HashMap<Vec<u8>, Vec<TaskId>>,
    pub(super) total: Counts,
    /// Last sequence number given.
    pub(super) seq: i64,
    /// What could not even be read.
    pub(super) unreadable: Vec<String>,
}

const PAGE: usize = 500;

pub(super) async fn scan(shard: &Shard) -> Result<Content> {
    let mut content = Content { now: crate::store::views::horizon::horizon(shard).await?.now.0, ..Content::default() };
    for key in keys(shard).await? {
        read(shard, &key, &mut content).await?;
    }
    content.total = crate::store::views::queues::totals(shard).await?;
    Ok(content)
}

async fn keys(shard: &Shard) -> Result<Vec<Vec<u8>>> {
    let mut all = Vec::new();
    // On a Cluster SCAN goes to one node; a pattern with a hash tag does not choose it, so the whole is asked for.
    let mut cursor = b"0".to_vec();
    let pattern = [shard.keys.base().as_bytes(), b"*"].concat();
    loop {
        let mut command = cmd("SCAN");
        command.arg(&cursor).arg("MATCH").arg(&pattern).arg("COUNT").arg(1000);
        let mut reply = items(shard.client().send_to(shard.keys.base(), &command).await?)?;
        cursor = reply.bytes()?;
        for key in reply.items()? {
            all.push(bytes(key)?);
        }
        if cursor == b"0" {
            all.sort_unstable();
            all.dedup();
            return Ok(all);
        }
    }
}

/// Splits a name into the fixed word and the rest, and finds its pattern.
fn pattern_of(name: &[u8]) -> Option<(&'static str, Kind, &[u8])> {
    let end = name.iter().position(|&byte| byte == b':');
    let (word, rest) = match end {
        Some(end) => (name.get(..end)?, name.get(end + 1..)?),
        None => (name, &[][..]),
    };
    PATTERNS.iter().find_map(|pattern| {
        let (fixed, variable) = pattern.form.split_once(':').unwrap_or((pattern.form, ""));
        (fixed.as_bytes() == word && variable.is_empty() == end.is_none()).then_some((fixed, pattern.kind, rest))
    })
}

async fn read(shard: &Shard, key: &[u8], content: &mut Content) -> Result<()> {
    let name = key.get(shard.keys.base().len()..).unwrap_or_default();
    let shown = String::from_utf8_lossy(name).into_owned();
    let Some((word, kind, rest)) = pattern_of(name) else {
        content.unreadable.push(format!("key {shown} is none of ours"));
        return Ok(());
    };
    let found = text(shard.client().send(cmd("TYPE").arg(key)).await?)?;
    let wanted = match kind {
        Kind::Hash => "hash",
        Kind::Zset => "zset",
        Kind::Set => "set",
        Kind::String => "string",
        Kind::List => "list",
    };
    if found == "none" {
        return Ok(());
    }
    if found != wanted {
        content.unreadable.push(format!("key {shown} is a {found} and should be a {wanted}"));
        return Ok(());
    }
    let rest_text = String::from_utf8_lossy(rest).into_owned();
    let queue = rest_text.split(':').next().and_then(QueueName::parse);
    match (word, queue) {
        ("task", _) => task(shard, key, rest, content).await?,
        ("slot", Some(queue)) => {
            let place = rest_text.split_once(':').and_then(|(_, place)| parse_place(place));
            let Some(place) = place else {
                content.unreadable.push(format!("key {shown} names no slot"));
                return Ok(());
            };
            let members = ids(shard, key).await?;
            content.queues.entry(queue).or_default().slots.insert(place, members);
        }
        ("wheel", Some(queue)) => {
            let indexes = content.queues.entry(queue).or_default();
            for (member, score) in members(shard, key).await? {
                match std::str::from_utf8(&member).ok().and_then(parse_place) {
                    Some(place) => drop(indexes.wheel.insert(place, score)),
                    None => content.unreadable.push(format!("{shown} holds {}", String::from_utf8_lossy(&member))),
                }
            }
        }
        ("scheduled", Some(queue)) => {
            content.queues.entry(queue).or_default().scheduled = ids(shard, key).await?;
        }
        ("leased", Some(queue)) => content.queues.entry(queue).or_default().leased = ids(shard, key).await?,
        ("ended", Some(queue)) => {
            let state = rest_text.split_once(':').and_then(|(_, state)| State::parse(state));
            if let Some(state) = state {
                let members = ids(shard, key).await?;
                content.queues.entry(queue).or_default().ended.insert(state.as_str(), members);
            }
        }
        ("count", Some(queue)) => {
            let answer = shard.client().send(cmd("HMGET").arg(key).arg(&Counts::NAMES)).await?;
            content.queues.entry(queue).or_default().counts.add(answer)?;
        }
        ("queue", Some(queue)) => {
            let answer = shard.client().send(cmd("HGET").arg(key).arg("paused")).await?;
            content.queues.entry(queue).or_default().paused = matches!(answer, Value::BulkString(flag) if flag == b"1");
        }
        ("dedupe", Some(queue)) => {
            let digest = rest.get(queue.as_str().len() + 1..).unwrap_or_default().to_vec();
            if let Value::BulkString(record) = shard.client().send(cmd("GET").arg(key)).await? {
                let holder = record.get(..16).and_then(TaskId::from_bytes);
                let until = record.get(16..).filter(|rest| !rest.is_empty()).and_then(number);
                content.queues.entry(queue).or_default().dedupe.insert(digest, (holder, until));
            }
        }
        ("claim", _) => {
            let list = items(shard.client().send(cmd("SMEMBERS").arg(key)).await?)?;
            let ids = list.filter_map(|id| TaskId::from_bytes(&bytes(id).ok()?)).collect();
            content.claims.insert(rest.to_vec(), ids);
        }
        ("ready", _) => content.ready = named(shard, key).await?,
        ("due", _) => content.due = named(shard, key).await?,
        ("queues", _) => content.listed = named(shard, key).await?,
        ("deadline", _) => content.deadline = ids(shard, key).await?,
        ("retain", _) => content.retain = ids(shard, key).await?,
        ("seq", _) => {
            if let Value::BulkString(seq) = shard.client().send(cmd("HGET").arg(key).arg("seq")).await? {
                content.seq = number(&seq).unwrap_or(0);
            }
        }
        ("slot" | "wheel" | "scheduled" | "leased" | "ended" | "queue" | "dedupe", None) => {
            content.unreadable.push(format!("key {shown} names no queue"));
        }
        _ => {}
    }
    Ok(())
}

fn parse_place(place: &str) -> Option<(u8, u16)> {
    let (priority, slot) = place.split_once(':')?;
    Some((priority.parse().ok().filter(|priority| *priority <= 9)?, Slot::new(slot.parse().ok()?)?.number()))
}

async fn task(shard: &Shard, key: &[u8], id: &[u8], content: &mut Content) -> Result<()> {
    let Some(id) = TaskId::from_bytes(id) else {
        content.unreadable.push(format!("a task's key has an id of {} bytes", id.len()));
        return Ok(());
    };
    let answer = shard.client().send(cmd("HGETALL").arg(key)).await?;
    let Some(fields) = Fields::of(id, answer)? else { return Ok(()) };
    if let Err(error) = fields.task() {
        content.unreadable.push(error.to_string());
        return Ok(());
    }
    let seen = Seen {
        queue: fields.queue()?,
        state: fields.state()?,
        slot: fields.slot()?,
        priority: fields.priority()?,
        seq: fields.int("n").unwrap_or(0),
        run_at: fields.int("w"),
        lease_until: fields.int("u"),
        expires_at: fields.int("x"),
        finished_at: fields.int("f"),
        claim: fields.bytes("C").map(<[u8]>::to_vec),
        dedupe: fields.bytes("D").map(<[u8]>::to_vec),
    };
    content.queues.entry(seen.queue.clone()).or_default();
    content.tasks.insert(id, seen);
    Ok(())
}

/// Members and scores of a zset, page by page.
async fn members(shard: &Shard, key: &[u8]) -> Result<Vec<(Vec<u8>, i64)>> {
    let mut all = Vec::new();
    loop {
        let mut pipeline = pipe();
        pipeline.cmd("ZRANGE").arg(key).arg(all.len()).arg(all.len() + PAGE - 1).arg("WITHSCORES");
        let Some(answer) = shard.read(&pipeline).await?.pop() else { return Ok(all) };
        let mut list = items(answer)?;
        let count = list.len() / 2;
        while let Some(member) = list.next() {
            all.push((bytes(member)?, int(list.value()?)?));
        }
        if count < PAGE {
            return Ok(all);
        }
    }
}

async fn ids(shard: &Shard, key: &[u8]) -> Result<HashMap<TaskId, i64>> {
    let all = members(shard, key).await?.into_iter();
    Ok(all.filter_map(|(member, score)| Some((TaskId::from_bytes(&member)?, score))).collect())
}

async fn named(shard: &Shard, key: &[u8]) -> Result<HashMap<String, i64>> {
    let all = members(shard, key).await?.into_iter();
    Ok(all.map(|(member, score)| (String::from_utf8_lossy(&member).into_owned(), score)).collect())
}
