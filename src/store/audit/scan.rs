//! Reads all keys of a shard.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};

use deadpool_redis::redis::{Value, cmd, pipe};

use super::task::{TaskSnapshot, task_snapshot, unreadable_task};
use crate::domain::digest::KeyDigest;
use crate::domain::id::TaskId;
use crate::domain::queue::{QueueName, QueueSettings};
use crate::domain::state::State;
use crate::store::error::{Result, if_readable};
use crate::store::invariant::Invariant;
use crate::store::keys::{KeyType, PATTERNS};
use crate::store::redis::reply::{bytes, int, parse_int, read_list, text};
use crate::store::settings;
use crate::store::shard::Shard;
use crate::store::task_hash::TaskHash;
use crate::store::views::queue_records::{
    KEYED, KeyedMember, ListName, QueueRecord, ShardRecord, ended_list, parse_wheel_member, queue_records, shard_record,
};

/// A slot queue or a list of ended tasks, and the number of its piece, `None` for its head.
pub(super) type ListPlace = (ListName, Option<i64>);

/// The indexes and keys of one queue.
#[derive(Default, Debug)]
pub(super) struct QueueIndexes {
    /// Id → seq or time of the end.
    pub(super) lists: BTreeMap<ListPlace, HashMap<TaskId, i64>>,
    /// The digests of the keys of tasks in keyed slot queues.
    pub(super) key_digests: HashMap<TaskId, KeyDigest>,
    pub(super) wheel: BTreeMap<ListName, i64>,
    pub(super) scheduled: HashMap<TaskId, i64>,
    pub(super) leased: HashMap<TaskId, i64>,
    pub(super) record: QueueRecord,
    pub(super) is_record_unreadable: bool,
    pub(super) settings: QueueSettings,
    /// Digest → holder, end of the window.
    pub(super) dedupe: HashMap<Vec<u8>, (Option<TaskId>, Option<i64>)>,
}

/// The content of a shard.
#[derive(Default, Debug)]
pub(super) struct ShardSnapshot {
    pub(super) now: i64,
    pub(super) tasks: HashMap<TaskId, TaskSnapshot>,
    pub(super) queues: BTreeMap<QueueName, QueueIndexes>,
    /// Tasks that exist but cannot be decoded.
    pub(super) unreadable_tasks: HashSet<TaskId>,
    pub(super) queue_index: HashMap<Vec<u8>, i64>,
    pub(super) due: HashMap<Vec<u8>, i64>,
    /// Queues with a master copy of settings, and queues in the index of settings.
    pub(super) settings: BTreeSet<Vec<u8>>,
    pub(super) settings_index: BTreeSet<Vec<u8>>,
    pub(super) expirations: HashMap<TaskId, i64>,
    pub(super) retention: HashMap<TaskId, i64>,
    /// `<queue>:<state>` → time
    pub(super) ended_due: HashMap<Vec<u8>, i64>,
    pub(super) claims: HashMap<Vec<u8>, Vec<TaskId>>,
    /// The record of the shard. `None`: it is unreadable.
    pub(super) record: Option<ShardRecord>,
    /// Invariants violated by malformed entries.
    pub(super) malformed: BTreeSet<Invariant>,
    /// The number of keys that a repair has set aside.
    pub(super) set_aside: usize,
    /// Messages about data that cannot be read.
    pub(super) unreadable: Vec<String>,
}

const PAGE_SIZE: usize = 500;
/// The number of tasks read together. A document may have 256 KiB.
const TASKS_PER_READ: usize = 20;

pub(super) async fn scan(shard: &Shard) -> Result<ShardSnapshot> {
    let now = crate::store::views::next_due::next_due(shard).await?.now.0;
    let mut snapshot = ShardSnapshot { now, ..ShardSnapshot::default() };
    for page in scan_keys(shard).await?.chunks(PAGE_SIZE) {
        read_keys(shard, page, &mut snapshot).await?;
    }
    // Behind all others: a queue that is in `queues` has a record.
    read_records(shard, &mut snapshot).await?;
    Ok(snapshot)
}

/// Reads the records of the shard and of all its queues.
async fn read_records(shard: &Shard, snapshot: &mut ShardSnapshot) -> Result<()> {
    let mut names: Vec<QueueName> = Vec::new();
    // A hash of another type is reported as such.
    let fields = if_readable(read_list(shard.send(cmd("HKEYS").arg(shard.keys.callers())).await?))?;
    for field in fields.into_iter().flatten() {
        let field = bytes(field)?;
        let Some(name) = field.strip_prefix(b"queue:") else { continue };
        match std::str::from_utf8(name).ok().and_then(QueueName::parse) {
            Some(name) => names.push(name),
            None => snapshot.unreadable.push(format!("field {} of callers has no valid queue name", shown(&field))),
        }
    }
    for (name, record) in names.iter().zip(queue_records(shard, &names).await?) {
        let queue = snapshot.queues.entry(name.clone()).or_default();
        queue.is_record_unreadable = record.is_none();
        queue.record = record.unwrap_or_default();
    }
    snapshot.record = if_readable(shard_record(shard).await)?;
    Ok(())
}

fn shown(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

async fn scan_keys(shard: &Shard) -> Result<Vec<Vec<u8>>> {
    let mut keys = Vec::new();
    // On a Cluster, SCAN must go to one node. A pattern with a hash tag does not select it.
    let mut cursor = b"0".to_vec();
    let pattern = [shard.keys.base().as_bytes(), b"*"].concat();
    loop {
        let mut command = cmd("SCAN");
        command.arg(&cursor).arg("MATCH").arg(&pattern).arg("COUNT").arg(1000);
        let mut reply = read_list(shard.client().send_to_master_of(shard.keys.base(), &command).await?)?;
        cursor = reply.bytes()?;
        for key in reply.list()? {
            keys.push(bytes(key)?);
        }
        if cursor == b"0" {
            keys.sort_unstable();
            keys.dedup();
            return Ok(keys);
        }
    }
}

/// Divides a key without its base into the fixed word and the rest, and finds its type.
fn match_pattern(name: &[u8]) -> Option<(&'static str, KeyType, &[u8])> {
    let end = name.iter().position(|&byte| byte == b':');
    let (word, rest) = match end {
        Some(end) => (name.get(..end)?, name.get(end + 1..)?),
        None => (name, &[][..]),
    };
    PATTERNS.iter().find_map(|pattern| {
        let (fixed, variable) = pattern.pattern.split_once(':').unwrap_or((pattern.pattern, ""));
        (fixed.as_bytes() == word && variable.is_empty() == end.is_none()).then_some((fixed, pattern.key_type, rest))
    })
}

/// Reads the keys, tasks last.
async fn read_keys(shard: &Shard, keys: &[Vec<u8>], snapshot: &mut ShardSnapshot) -> Result<()> {
    let mut types = pipe();
    for key in keys {
        types.cmd("TYPE").arg(key);
    }
    let mut tasks = Vec::new();
    for (key, found) in keys.iter().zip(shard.send_pipeline(&types).await?) {
        let name = key.get(shard.keys.base().len()..).unwrap_or_default();
        let Some((word, kind, rest)) = match_pattern(name) else {
            snapshot.unreadable.push(format!("unknown key {}", String::from_utf8_lossy(name)));
            continue;
        };
        let wanted = match kind {
            KeyType::Hash => "hash",
            KeyType::Zset => "zset",
            KeyType::Set => "set",
            KeyType::String => "string",
            KeyType::List => "list",
            KeyType::Any => {
                snapshot.set_aside += 1;
                continue;
            }
        };
        let found = text(found)?;
        if found == "none" {
            continue;
        }
        let id = (word == "task").then(|| TaskId::from_bytes(rest));
        if found != wanted {
            snapshot.malformed.insert(Invariant::KeyType { key: name.to_vec(), expected: wanted });
            snapshot.unreadable_tasks.extend(id.flatten());
            continue;
        }
        match id {
            Some(Some(id)) => tasks.push(id),
            Some(None) => {
                snapshot.unreadable.push(format!("a task key has an id of {} bytes instead of 16", rest.len()))
            }
            None => read_index(shard, key, word, rest, snapshot).await?,
        }
    }
    for ids in tasks.chunks(TASKS_PER_READ) {
        let mut hashes = pipe();
        for id in ids {
            hashes.cmd("HGETALL").arg(shard.keys.task(id));
        }
        for (id, hash) in ids.iter().zip(shard.send_pipeline(&hashes).await?) {
            let Some(fields) = TaskHash::parse(*id, hash)? else { continue };
            match task_snapshot(&fields) {
                Ok(task) => {
                    snapshot.queues.entry(task.queue.clone()).or_default();
                    snapshot.tasks.insert(*id, task);
                }
                Err(error) => {
                    snapshot.unreadable_tasks.insert(*id);
                    snapshot.malformed.insert(unreadable_task(*id, &fields, &error));
                }
            }
        }
    }
    Ok(())
}

/// Reads a key other than that of a task.
async fn read_index(shard: &Shard, key: &[u8], word: &str, rest: &[u8], snapshot: &mut ShardSnapshot) -> Result<()> {
    let name = key.get(shard.keys.base().len()..).unwrap_or_default();
    let shown = String::from_utf8_lossy(name).into_owned();
    let rest_text = String::from_utf8_lossy(rest).into_owned();
    let queue = rest_text.split(':').next().and_then(QueueName::parse);
    match (word, queue) {
        ("slot", Some(queue)) => {
            let place = rest_text.split_once(':').and_then(|(_, place)| parse_slot_key(place));
            let Some(place) = place else {
                snapshot.unreadable.push(format!("key {shown} has no valid slot"));
                return Ok(());
            };
            if place.0.0 >= KEYED {
                read_keyed_slot_queue(
                    shard,
                    key,
                    name,
                    place,
                    snapshot.queues.entry(queue).or_default(),
                    &mut snapshot.malformed,
                )
                .await?;
                return Ok(());
            }
            let members = read_id_zset(shard, key, name, snapshot).await?;
            snapshot.queues.entry(queue).or_default().lists.insert(place, members);
        }
        ("wheel", Some(queue)) => {
            let mut wheel = BTreeMap::new();
            for (member, score) in read_zset(shard, key).await? {
                match std::str::from_utf8(&member).ok().and_then(parse_wheel_member) {
                    Some(wheel_slot) => drop(wheel.insert(wheel_slot, score)),
                    None => drop(snapshot.malformed.insert(Invariant::WheelEntry { queue: queue.clone(), member })),
                }
            }
            snapshot.queues.entry(queue).or_default().wheel = wheel;
        }
        ("scheduled", Some(queue)) => {
            let members = read_id_zset(shard, key, name, snapshot).await?;
            snapshot.queues.entry(queue).or_default().scheduled = members;
        }
        ("leased", Some(queue)) => {
            let members = read_id_zset(shard, key, name, snapshot).await?;
            snapshot.queues.entry(queue).or_default().leased = members;
        }
        ("ended", Some(queue)) => {
            let place = rest_text.split_once(':').map_or("", |(_, place)| place);
            let (state, piece) = place.split_once(':').map_or((place, None), |(state, piece)| (state, Some(piece)));
            match (State::parse(state).and_then(ended_list), piece.map(str::parse).transpose()) {
                (Some(list), Ok(piece)) => {
                    let members = read_id_zset(shard, key, name, snapshot).await?;
                    snapshot.queues.entry(queue).or_default().lists.insert((list, piece), members);
                }
                _ => snapshot.unreadable.push(format!("key {shown} has no valid state")),
            }
        }
        ("settings_copy", Some(queue)) => {
            let mut values = read_list(shard.send(cmd("HMGET").arg(key).arg(&settings::FIELDS)).await?)?;
            snapshot.queues.entry(queue).or_default().settings = settings::decode(&mut values)?;
        }
        ("dedupe", Some(queue)) => {
            let digest = rest.get(queue.as_str().len() + 1..).unwrap_or_default().to_vec();
            if let Value::BulkString(record) = shard.send(cmd("GET").arg(key)).await? {
                let holder = record.get(..16).and_then(TaskId::from_bytes);
                let until = record.get(16..).filter(|rest| !rest.is_empty()).and_then(parse_int);
                snapshot.queues.entry(queue).or_default().dedupe.insert(digest, (holder, until));
            }
        }
        ("claim", _) => {
            let list = read_list(shard.send(cmd("SMEMBERS").arg(key)).await?)?;
            let mut ids = Vec::new();
            for member in list {
                parse_member(bytes(member)?, name, snapshot, |id| ids.push(id));
            }
            snapshot.claims.insert(rest.to_vec(), ids);
        }
        ("settings", _) => drop(snapshot.settings.insert(rest.to_vec())),
        ("settings_index", _) => snapshot.settings_index = read_name_zset(shard, key).await?.into_keys().collect(),
        ("due", _) => snapshot.due = read_name_zset(shard, key).await?,
        ("queues", _) => snapshot.queue_index = read_name_zset(shard, key).await?,
        ("expirations", _) => snapshot.expirations = read_id_zset(shard, key, name, snapshot).await?,
        ("ended_due", _) => snapshot.ended_due = read_name_zset(shard, key).await?,
        ("retention", _) => snapshot.retention = read_id_zset(shard, key, name, snapshot).await?,
        ("idempotency", _) => {
            let mut pipeline = pipe();
            pipeline.cmd("HGET").arg(key).arg("until").cmd("PTTL").arg(key);
            let mut replies = shard.send_pipeline(&pipeline).await?.into_iter();
            let until = replies.next().and_then(|until| int(until).ok()).unwrap_or(snapshot.now);
            let left = int(replies.next().unwrap_or(Value::Nil))?;
            if left == -1 || (left >= 0 && left + 1000 < until - snapshot.now) {
                snapshot.malformed.insert(Invariant::Idempotency(rest.to_vec()));
            }
        }
        ("slot" | "wheel" | "scheduled" | "leased" | "ended" | "settings_copy" | "dedupe", None) => {
            snapshot.unreadable.push(format!("key {shown} has no valid queue name"));
        }
        _ => {}
    }
    Ok(())
}

/// Parses `<priority>:<slot>`, `<priority>:<slot>:k` or `<priority>:<slot>:<piece>`.
fn parse_slot_key(place: &str) -> Option<ListPlace> {
    if let Some(list) = parse_wheel_member(place) {
        return Some((list, None));
    }
    let (member, piece) = place.rsplit_once(':')?;
    Some((parse_wheel_member(member).filter(|list| list.0 < KEYED)?, Some(piece.parse().ok()?)))
}

/// Reads a keyed slot queue. A member with another score than 0, and a second one of a task, is malformed.
async fn read_keyed_slot_queue(
    shard: &Shard,
    key: &[u8],
    index: &[u8],
    place: ListPlace,
    queue: &mut QueueIndexes,
    malformed: &mut BTreeSet<Invariant>,
) -> Result<()> {
    let entries = queue.lists.entry(place).or_default();
    for (bytes, score) in read_zset(shard, key).await? {
        let member = KeyedMember::parse(&bytes).filter(|member| score == 0 && !entries.contains_key(&member.id));
        match member {
            Some(KeyedMember { key_digest, seq, id }) => {
                entries.insert(id, seq);
                queue.key_digests.insert(id, key_digest);
            }
            None => drop(malformed.insert(Invariant::IndexEntry { member: bytes, index: index.to_vec() })),
        }
    }
    Ok(())
}

/// Reads the members and scores of a zset in pages.
async fn read_zset(shard: &Shard, key: &[u8]) -> Result<Vec<(Vec<u8>, i64)>> {
    let mut members = Vec::new();
    loop {
        let mut pipeline = pipe();
        pipeline.cmd("ZRANGE").arg(key).arg(members.len()).arg(members.len() + PAGE_SIZE - 1).arg("WITHSCORES");
        let Some(reply) = shard.send_pipeline(&pipeline).await?.pop() else { return Ok(members) };
        let mut list = read_list(reply)?;
        let count = list.len() / 2;
        while let Some(member) = list.next() {
            members.push((bytes(member)?, int(list.value()?)?));
        }
        if count < PAGE_SIZE {
            return Ok(members);
        }
    }
}

/// Parses an id. Records anything else as a malformed index entry.
fn parse_member(member: Vec<u8>, index: &[u8], snapshot: &mut ShardSnapshot, accept: impl FnOnce(TaskId)) {
    match TaskId::from_bytes(&member) {
        Some(id) => accept(id),
        None => drop(snapshot.malformed.insert(Invariant::IndexEntry { member, index: index.to_vec() })),
    }
}

async fn read_id_zset(
    shard: &Shard,
    key: &[u8],
    index: &[u8],
    snapshot: &mut ShardSnapshot,
) -> Result<HashMap<TaskId, i64>> {
    let mut ids = HashMap::new();
    for (member, score) in read_zset(shard, key).await? {
        parse_member(member, index, snapshot, |id| {
            ids.insert(id, score);
        });
    }
    Ok(ids)
}

async fn read_name_zset(shard: &Shard, key: &[u8]) -> Result<HashMap<Vec<u8>, i64>> {
    Ok(read_zset(shard, key).await?.into_iter().collect())
}
