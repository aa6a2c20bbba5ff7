//! Reads a shard whole.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};

use deadpool_redis::redis::{Value, cmd, pipe};

use super::subject::Subject;
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
    /// When it lets go of its dedupe key, if not at its end.
    pub(super) lets_go_at: Option<i64>,
    /// It bears what only a task in another state does.
    pub(super) marked: bool,
}

impl Seen {
    pub(super) fn waits(&self) -> bool {
        matches!(self.state, State::Scheduled | State::Ready)
    }
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
    /// Tasks that are there and cannot be read.
    pub(super) broken: HashSet<TaskId>,
    pub(super) listed: HashMap<Vec<u8>, i64>,
    pub(super) ready: HashMap<Vec<u8>, i64>,
    pub(super) due: HashMap<Vec<u8>, i64>,
    /// Queues that have a master copy of settings, and those that are listed as such.
    pub(super) settings: BTreeSet<Vec<u8>>,
    pub(super) configured: BTreeSet<Vec<u8>>,
    pub(super) deadline: HashMap<TaskId, i64>,
    pub(super) retain: HashMap<TaskId, i64>,
    pub(super) claims: HashMap<Vec<u8>, Vec<TaskId>>,
    pub(super) total: Counts,
    /// Last sequence number and last turn given.
    pub(super) seq: i64,
    pub(super) turn: i64,
    /// What does not fit by itself.
    pub(super) strays: BTreeSet<Subject>,
    /// What could not even be read.
    pub(super) unreadable: Vec<String>,
}

const PAGE: usize = 500;
/// Tasks read at once: a document may have 256 KiB.
const TASKS: usize = 20;

pub(super) async fn scan(shard: &Shard) -> Result<Content> {
    let now = crate::store::views::horizon::horizon(shard).await?.now.0;
    // Turns begin there, see stage.lua.
    let mut content = Content { now, turn: 1 << 48, ..Content::default() };
    for page in keys(shard).await?.chunks(PAGE) {
        read(shard, page, &mut content).await?;
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

/// Reads the keys, tasks after the others.
async fn read(shard: &Shard, keys: &[Vec<u8>], content: &mut Content) -> Result<()> {
    let mut types = pipe();
    for key in keys {
        types.cmd("TYPE").arg(key);
    }
    let mut tasks = Vec::new();
    for (key, found) in keys.iter().zip(shard.read(&types).await?) {
        let name = key.get(shard.keys.base().len()..).unwrap_or_default();
        let Some((word, kind, rest)) = pattern_of(name) else {
            content.unreadable.push(format!("key {} is none of ours", String::from_utf8_lossy(name)));
            continue;
        };
        let wanted = match kind {
            Kind::Hash => "hash",
            Kind::Zset => "zset",
            Kind::Set => "set",
            Kind::String => "string",
            Kind::List => "list",
        };
        let found = text(found)?;
        if found == "none" {
            continue;
        }
        let id = (word == "task").then(|| TaskId::from_bytes(rest));
        if found != wanted {
            let shown = String::from_utf8_lossy(name);
            content.unreadable.push(format!("key {shown} is a {found} and should be a {wanted}"));
            content.broken.extend(id.flatten());
            continue;
        }
        match id {
            Some(Some(id)) => tasks.push(id),
            Some(None) => content.unreadable.push(format!("a task's key has an id of {} bytes", rest.len())),
            None => index(shard, key, word, rest, content).await?,
        }
    }
    for ids in tasks.chunks(TASKS) {
        let mut hashes = pipe();
        for id in ids {
            hashes.cmd("HGETALL").arg(shard.keys.task(id));
        }
        for (id, hash) in ids.iter().zip(shard.read(&hashes).await?) {
            let Some(fields) = Fields::of(*id, hash)? else { continue };
            match seen(&fields) {
                Ok(task) => {
                    content.queues.entry(task.queue.clone()).or_default();
                    content.tasks.insert(*id, task);
                }
                Err(error) => {
                    content.unreadable.push(format!("{error}; it is left where it is"));
                    content.broken.insert(*id);
                }
            }
        }
    }
    Ok(())
}

/// Reads a key that is not a task.
async fn index(shard: &Shard, key: &[u8], word: &str, rest: &[u8], content: &mut Content) -> Result<()> {
    let name = key.get(shard.keys.base().len()..).unwrap_or_default();
    let shown = String::from_utf8_lossy(name).into_owned();
    let rest_text = String::from_utf8_lossy(rest).into_owned();
    let queue = rest_text.split(':').next().and_then(QueueName::parse);
    match (word, queue) {
        ("slot", Some(queue)) => {
            let place = rest_text.split_once(':').and_then(|(_, place)| parse_place(place));
            let Some(place) = place else {
                content.unreadable.push(format!("key {shown} names no slot"));
                return Ok(());
            };
            let members = ids(shard, key, name, content).await?;
            content.queues.entry(queue).or_default().slots.insert(place, members);
        }
        ("wheel", Some(queue)) => {
            let mut wheel = BTreeMap::new();
            for (member, score) in members(shard, key).await? {
                match std::str::from_utf8(&member).ok().and_then(parse_place) {
                    Some(place) => drop(wheel.insert(place, score)),
                    None => drop(content.strays.insert(Subject::Place { queue: queue.clone(), member })),
                }
            }
            content.queues.entry(queue).or_default().wheel = wheel;
        }
        ("scheduled", Some(queue)) => {
            let members = ids(shard, key, name, content).await?;
            content.queues.entry(queue).or_default().scheduled = members;
        }
        ("leased", Some(queue)) => {
            let members = ids(shard, key, name, content).await?;
            content.queues.entry(queue).or_default().leased = members;
        }
        ("ended", Some(queue)) => {
            let state = rest_text.split_once(':').and_then(|(_, state)| State::parse(state));
            if let Some(state) = state {
                let members = ids(shard, key, name, content).await?;
                content.queues.entry(queue).or_default().ended.insert(state.as_str(), members);
            }
        }
        ("count", Some(queue)) => {
            let answer = shard.send(cmd("HMGET").arg(key).arg(&Counts::NAMES)).await?;
            content.queues.entry(queue).or_default().counts.add(answer)?;
        }
        ("queue", Some(queue)) => {
            let answer = shard.send(cmd("HGET").arg(key).arg("paused")).await?;
            content.queues.entry(queue).or_default().paused = matches!(answer, Value::BulkString(flag) if flag == b"1");
        }
        ("dedupe", Some(queue)) => {
            let digest = rest.get(queue.as_str().len() + 1..).unwrap_or_default().to_vec();
            if let Value::BulkString(record) = shard.send(cmd("GET").arg(key)).await? {
                let holder = record.get(..16).and_then(TaskId::from_bytes);
                let until = record.get(16..).filter(|rest| !rest.is_empty()).and_then(number);
                content.queues.entry(queue).or_default().dedupe.insert(digest, (holder, until));
            }
        }
        ("claim", _) => {
            let list = items(shard.send(cmd("SMEMBERS").arg(key)).await?)?;
            let mut ids = Vec::new();
            for member in list {
                take(bytes(member)?, name, content, |id| ids.push(id));
            }
            content.claims.insert(rest.to_vec(), ids);
        }
        ("settings", _) => drop(content.settings.insert(rest.to_vec())),
        ("configured", _) => content.configured = named(shard, key).await?.into_keys().collect(),
        ("ready", _) => content.ready = named(shard, key).await?,
        ("due", _) => content.due = named(shard, key).await?,
        ("queues", _) => content.listed = named(shard, key).await?,
        ("deadline", _) => content.deadline = ids(shard, key, name, content).await?,
        ("retain", _) => content.retain = ids(shard, key, name, content).await?,
        ("idem", _) => {
            let mut pipeline = pipe();
            pipeline.cmd("HGET").arg(key).arg("until").cmd("PTTL").arg(key);
            let mut answers = shard.read(&pipeline).await?.into_iter();
            let until = answers.next().and_then(|until| int(until).ok()).unwrap_or(content.now);
            let left = int(answers.next().unwrap_or(Value::Nil))?;
            if left == -1 || (left >= 0 && left + 1000 < until - content.now) {
                content.strays.insert(Subject::Idempotency(rest.to_vec()));
            }
        }
        ("seq", _) => {
            let given = items(shard.send(cmd("HMGET").arg(key).arg(&["seq", "turn"])).await?)?;
            for (counter, value) in [&mut content.seq, &mut content.turn].into_iter().zip(given) {
                *counter = int(value).unwrap_or(*counter);
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

/// What the audit needs of a task; an error where a field is missing without which it has no place.
fn seen(fields: &Fields) -> Result<Seen> {
    let state = fields.task()?.state;
    let waits = matches!(state, State::Scheduled | State::Ready);
    let time = match state {
        State::Ready => "n",
        State::Scheduled => "w",
        State::Leased => "u",
        State::Completed | State::Dead | State::Cancelled | State::Expired => "f",
    };
    fields.required(time)?;
    Ok(Seen {
        queue: fields.queue()?,
        state,
        slot: fields.slot()?,
        priority: fields.priority()?,
        seq: fields.required("n")?,
        run_at: fields.int("w"),
        lease_until: fields.int("u"),
        expires_at: fields.int("x"),
        finished_at: fields.int("f"),
        claim: fields.bytes("C").map(<[u8]>::to_vec),
        dedupe: fields.bytes("D").map(<[u8]>::to_vec),
        lets_go_at: fields.int("Y"),
        marked: !state.has_ended() && (fields.bytes("f").is_some() || (waits && fields.bytes("k").is_some())),
    })
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

/// An id, or what stands where one should be.
fn take(member: Vec<u8>, name: &[u8], content: &mut Content, with: impl FnOnce(TaskId)) {
    match TaskId::from_bytes(&member) {
        Some(id) => with(id),
        None => drop(content.strays.insert(Subject::Entry { member, index: name.to_vec() })),
    }
}

async fn ids(shard: &Shard, key: &[u8], name: &[u8], content: &mut Content) -> Result<HashMap<TaskId, i64>> {
    let mut ids = HashMap::new();
    for (member, score) in members(shard, key).await? {
        take(member, name, content, |id| {
            ids.insert(id, score);
        });
    }
    Ok(ids)
}

async fn named(shard: &Shard, key: &[u8]) -> Result<HashMap<Vec<u8>, i64>> {
    Ok(members(shard, key).await?.into_iter().collect())
}
