//! Isolation of unreadable data: a task or a key of a queue that cannot be processed costs neither other tasks nor other
//! queues. Recognises tasks that cannot be read, and keys of queues that have another type; postpones entries of indexes by
//! time; reviews what is noted in [`notes`](super::notes).

use deadpool_redis::redis::{Value, cmd, pipe};

use super::error::{Error, Result};
use super::notes::Noted;
use super::record::fields;
use super::redis::reply::{bytes, int, read_list, text};
use super::shard::Shard;
use super::task_hash::TaskHash;
use super::views::queue_records::{decode_queue, decode_shard, queue_field};
use crate::domain::id::TaskId;
use crate::domain::queue::QueueName;
use crate::domain::state::State;
use crate::domain::time::TimestampMs;

/// The number of tasks read together. A document may have 256 KiB.
const TASKS_PER_READ: usize = 20;
/// Slot queues of a queue whose types are checked: those with the next turns.
const SLOTS_CHECKED: usize = 20;
/// Queues whose types are read together.
const QUEUES_PER_CHECK: usize = 20;

/// An entry of an index by time.
#[derive(Clone, Debug)]
pub struct DueEntry {
    /// The member of the index: the id of a task, or other bytes.
    pub member: Vec<u8>,
    /// The condition of the task.
    pub condition: Condition,
}

/// The condition of the task that an entry names.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Condition {
    /// All fields that transitions need are readable. Holds the queue.
    Readable(QueueName),
    /// The key has another type, or a field is missing or malformed. Holds the reason.
    Unreadable(String),
    /// There is no such task.
    Missing,
}

/// Returns the first `limit` entries of an index that are due at `now`. `index` is its key without the shard's base.
pub async fn due_entries(shard: &Shard, index: &str, now: TimestampMs, limit: usize) -> Result<Vec<DueEntry>> {
    let mut command = cmd("ZRANGEBYSCORE");
    command.arg(index_key(shard, index)).arg("-inf").arg(now.0).arg(&["LIMIT", "0"]).arg(limit);
    let members = read_list(shard.send(&command).await?)?.map(bytes).collect::<Result<Vec<_>>>()?;
    let mut entries = Vec::with_capacity(members.len());
    for members in members.chunks(TASKS_PER_READ) {
        let ids: Vec<Option<TaskId>> = members.iter().map(|member| TaskId::from_bytes(member)).collect();
        let mut conditions = conditions(shard, ids.iter().flatten()).await?.into_iter();
        for (member, id) in members.iter().zip(&ids) {
            let condition = id.and_then(|_| conditions.next()).unwrap_or(Condition::Missing);
            entries.push(DueEntry { member: member.clone(), condition });
        }
    }
    Ok(entries)
}

/// Returns the condition of each task, at most 20 of them.
async fn conditions<'a>(shard: &Shard, ids: impl Iterator<Item = &'a TaskId> + Clone) -> Result<Vec<Condition>> {
    let mut hashes = pipe();
    for id in ids.clone() {
        hashes.cmd("HGETALL").arg(shard.keys.task(id));
    }
    if hashes.is_empty() {
        return Ok(Vec::new());
    }
    let replies = shard.send_pipeline(&hashes).await?;
    Ok(ids.zip(replies).map(|(id, reply)| condition(*id, reply)).collect())
}

/// Returns the condition of a task by the reply to HGETALL.
fn condition(id: TaskId, reply: Value) -> Condition {
    let fields = match TaskHash::parse(id, reply) {
        Ok(Some(fields)) => fields,
        Ok(None) => return Condition::Missing,
        Err(error) => return Condition::Unreadable(format!("task {id}: {error}")),
    };
    match check_readable(&fields).and_then(|_| fields.queue()) {
        Ok(queue) => Condition::Readable(queue),
        Err(error) => Condition::Unreadable(error.to_string()),
    }
}

/// Checks each field that a transition needs. Returns the state.
///
/// # Errors
/// [`Error::Unexpected`] with the task and the field.
pub(in crate::store) fn check_readable(fields: &TaskHash) -> Result<State> {
    let state = fields.task()?.state;
    let score_field = match state {
        State::Ready => fields::SEQ,
        State::Scheduled => fields::RUN_AT,
        State::Leased => fields::LEASE_UNTIL,
        State::Completed | State::Dead | State::Cancelled | State::Expired => fields::FINISHED_AT,
    };
    for name in [score_field, fields::SEQ] {
        fields.required_int(name)?;
    }
    for name in [fields::READY_AT, fields::EXPIRES_AT, fields::RETAIN_MS] {
        if fields.bytes(name).is_some() {
            fields.required_int(name)?;
        }
    }
    if state == State::Leased && fields.lease().is_none() {
        return Err(Error::Unexpected(format!("{}: the token of its lease is unreadable", fields.name())));
    }
    Ok(state)
}

/// Postpones entries of an index by time to `until`, unless their time is later already or they have left the index.
pub async fn postpone(shard: &Shard, index: &str, members: &[Vec<u8>], until: TimestampMs) -> Result<()> {
    if members.is_empty() {
        return Ok(());
    }
    let mut command = cmd("ZADD");
    command.arg(index_key(shard, index)).arg("XX").arg("GT");
    for member in members {
        command.arg(until.0).arg(member);
    }
    int(shard.send(&command).await?).map(drop)
}

/// Returns the names and types of the queue's keys, except its slot queues. Names lack the shard's base.
fn keys_of(queue: &QueueName) -> Vec<(String, &'static str)> {
    let mut names = vec![
        (format!("wheel:{queue}"), "zset"),
        (format!("scheduled:{queue}"), "zset"),
        (format!("leased:{queue}"), "zset"),
        (format!("settings_copy:{queue}"), "hash"),
    ];
    let ended = [State::Completed, State::Dead, State::Cancelled, State::Expired];
    names.extend(ended.map(|state| (format!("ended:{queue}:{state}"), "zset")));
    names
}

/// Returns the keys of the queue that have another type than they should, without the shard's base, and its record if it is
/// unreadable. Of its slot queues, those with the next 20 turns are checked.
pub async fn unreadable_keys(shard: &Shard, queue: &QueueName) -> Result<Vec<String>> {
    let mut found = mismatches(shard, &keys_of(queue)).await?;
    found.extend(unreadable_records(shard, std::slice::from_ref(queue)).await?);
    let mut command = cmd("ZRANGE");
    command.arg(shard.keys.wheel(queue)).arg(0).arg(SLOTS_CHECKED - 1);
    // A wheel of another type has been found.
    let wheel = match shard.send(&command).await {
        Err(Error::Unexpected(_)) => return Ok(found),
        wheel => read_list(wheel?)?,
    };
    let slots = wheel.filter_map(|member| Some((format!("slot:{queue}:{}", text(member).ok()?), "zset")));
    found.extend(mismatches(shard, &slots.collect::<Vec<_>>()).await?);
    Ok(found)
}

/// Returns what is wrong with `callers` if it has another type: then no script runs in the shard.
pub async fn unreadable_callers(shard: &Shard) -> Result<Option<String>> {
    let found = text(shard.send(cmd("TYPE").arg(shard.keys.callers())).await?)?;
    let is_readable = found == "hash" || found == "none";
    Ok((!is_readable).then(|| format!("the type of callers is {found}, expected hash, so that no script runs")))
}

/// Returns what is wrong with the record of the shard if it is unreadable: then no script runs that counts tasks.
pub async fn unreadable_shard_record(shard: &Shard) -> Result<Option<String>> {
    let record = shard.send(cmd("HGET").arg(shard.keys.callers()).arg("shard")).await;
    let error = match record {
        Ok(record) => decode_shard(&record).err(),
        // `callers` of another type is found by itself.
        Err(Error::Unexpected(_)) => None,
        Err(error) => return Err(error),
    };
    Ok(error.map(|error| format!("the record of the shard is unreadable: {error}")))
}

/// Checks the shard's queues after `after`, at most `limit`. Slot queues are not checked. Returns the queues with keys that
/// have another type than they should, with these keys; and the last queue, `None` after the last of the shard.
pub async fn check_queues(
    shard: &Shard,
    after: Option<&QueueName>,
    limit: usize,
) -> Result<(Vec<(QueueName, Vec<String>)>, Option<QueueName>)> {
    let mut command = cmd("ZRANGEBYLEX");
    let from = after.map_or("-".to_owned(), |name| format!("({name}"));
    command.arg(shard.keys.queues()).arg(from).arg("+").arg(&["LIMIT", "0"]).arg(limit);
    let members = read_list(shard.send(&command).await?)?;
    let is_whole = members.len() < limit;
    let names: Vec<QueueName> = members.filter_map(|name| QueueName::parse(&text(name).ok()?)).collect();
    let mut checked = Vec::new();
    for queues in names.chunks(QUEUES_PER_CHECK) {
        let keys: Vec<_> = queues.iter().flat_map(keys_of).collect();
        let mut found = mismatches(shard, &keys).await?;
        found.extend(unreadable_records(shard, queues).await?);
        for queue in queues {
            let mut names: Vec<String> = keys_of(queue).into_iter().map(|(name, _)| name).collect();
            names.push(record_name(queue));
            let found: Vec<String> = found.extract_if(.., |key| names.contains(key)).collect();
            checked.extend((!found.is_empty()).then(|| (queue.clone(), found)));
        }
    }
    Ok((checked, names.into_iter().next_back().filter(|_| !is_whole)))
}

/// Checks the noted data of the shard again, and forgets what is gone or can be processed again.
pub async fn review_notes(shard: &Shard) -> Result<()> {
    for Noted { queue, tasks } in shard.unreadable().of_shard(shard.index) {
        let mut readable = Vec::new();
        for tasks in tasks.chunks(TASKS_PER_READ) {
            let found = conditions(shard, tasks.iter()).await?;
            let gone = tasks.iter().zip(found).filter(|(_, found)| !matches!(found, Condition::Unreadable(_)));
            readable.extend(gone.map(|(task, _)| *task));
        }
        let has_readable_keys = match &queue {
            Some(queue) => unreadable_keys(shard, queue).await?.is_empty(),
            None => unreadable_callers(shard).await?.or(unreadable_shard_record(shard).await?).is_none(),
        };
        shard.unreadable().forget(shard.index, queue.as_ref(), &readable, has_readable_keys);
    }
    Ok(())
}

/// Returns the names of the unreadable records among those of these queues.
async fn unreadable_records(shard: &Shard, queues: &[QueueName]) -> Result<Vec<String>> {
    let mut records = pipe();
    for queue in queues {
        records.cmd("HGET").arg(shard.keys.callers()).arg(queue_field(queue));
    }
    if queues.is_empty() {
        return Ok(Vec::new());
    }
    let mut unreadable = Vec::new();
    for (queue, record) in queues.iter().zip(shard.send_pipeline(&records).await?) {
        // `callers` of another type is found by itself.
        if matches!(record, Value::BulkString(_)) && decode_queue(&record).is_err() {
            unreadable.push(record_name(queue));
        }
    }
    Ok(unreadable)
}

/// Returns the name of a queue's record in messages.
fn record_name(queue: &QueueName) -> String {
    format!("callers, field {}", queue_field(queue))
}

/// Returns those keys whose type is neither the given one nor `none`.
async fn mismatches(shard: &Shard, keys: &[(String, &str)]) -> Result<Vec<String>> {
    if keys.is_empty() {
        return Ok(Vec::new());
    }
    let mut types = pipe();
    for (name, _) in keys {
        types.cmd("TYPE").arg(index_key(shard, name));
    }
    let mut found = Vec::new();
    for ((name, expected), actual) in keys.iter().zip(shard.send_pipeline(&types).await?) {
        let actual = text(actual)?;
        if actual != *expected && actual != "none" {
            found.push(name.clone());
        }
    }
    Ok(found)
}

fn index_key(shard: &Shard, name: &str) -> Vec<u8> {
    [shard.keys.base().as_bytes(), name.as_bytes()].concat()
}
