//! Queues: their names and settings, and their ready tasks.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::RangeInclusive;

use deadpool_redis::redis::{Value, cmd, pipe};
use futures_util::future::try_join_all;

pub use super::queue_records::Counts;
use super::queue_records::{KeyedMember, decode_queue, parse_wheel_member, queue_field};
use crate::domain::id::TaskId;
use crate::domain::queue::{QueueName, QueueSettings};
use crate::domain::state::State;
use crate::domain::time::TimestampMs;
use crate::store::error::{Result, if_readable};
use crate::store::record::fields;
use crate::store::redis::reply::{bytes, int, read_list, text};
use crate::store::settings;
use crate::store::shard::{Shard, Store};
use crate::store::task_hash::TaskHash;

/// A queue with its counts.
#[derive(Clone, Debug)]
pub struct Queue {
    /// Its name.
    pub name: QueueName,
    /// Its settings.
    pub settings: QueueSettings,
    /// Its tasks.
    pub counts: Counts,
    /// The age of the oldest ready task in ms. Exact up to 1000 slots with ready tasks in a shard; beyond, only the
    /// slots with the next 1000 turns count.
    pub oldest_ready_age_ms: Option<i64>,
    /// Whether a key of the queue is unreadable. Its part of the settings, counts or ages is missing.
    pub is_unreadable: bool,
}

/// Returns the queue. `None`: it has neither tasks nor settings.
pub async fn queue(store: &Store, name: &QueueName) -> Result<Option<Queue>> {
    let parts = try_join_all(store.shards().iter().map(|shard| read_part(shard, name))).await?;
    let mut queue = Queue {
        name: name.clone(),
        settings: QueueSettings::default(),
        counts: Counts::default(),
        oldest_ready_age_ms: None,
        is_unreadable: false,
    };
    let mut is_known = false;
    for part in parts {
        is_known |= part.is_known;
        queue.is_unreadable |= part.is_unreadable;
        queue.settings = settings::merge(queue.settings, part.settings);
        queue.counts.merge(part.counts);
        queue.oldest_ready_age_ms = queue.oldest_ready_age_ms.max(part.oldest_ready_age_ms);
    }
    Ok(is_known.then_some(queue))
}

struct ShardPart {
    is_known: bool,
    settings: QueueSettings,
    counts: Counts,
    oldest_ready_age_ms: Option<i64>,
    is_unreadable: bool,
}

async fn read_part(shard: &Shard, name: &QueueName) -> Result<ShardPart> {
    let mut pipeline = pipe();
    pipeline.cmd("ZSCORE").arg(shard.keys.queues()).arg(name.as_str());
    pipeline.cmd("HMGET").arg(shard.keys.settings_copy(name)).arg(&settings::FIELDS);
    pipeline.cmd("HGET").arg(shard.keys.callers()).arg(queue_field(name));
    pipeline.cmd("ZRANGE").arg(shard.keys.wheel(name)).arg(0).arg(999);
    let mut replies = shard.send_pipeline(&pipeline).await?.into_iter();
    let mut next = || replies.next().unwrap_or(Value::Nil);
    let is_known = !matches!(next(), Value::Nil);
    let settings = if_readable(read_list(next()).and_then(|mut fields| settings::decode(&mut fields)))?;
    let record = if_readable(decode_queue(&next()))?;
    let entries = if_readable(read_list(next()).and_then(|list| list.map(text).collect::<Result<Vec<String>>>()))?;
    let is_unreadable = settings.is_none() || record.is_none() || entries.is_none();
    let (settings, entries) = (settings.unwrap_or_default(), entries.unwrap_or_default());
    let oldest_ready_age_ms = match entries.is_empty() {
        true => None,
        false => {
            let now = super::next_due::next_due(shard).await?.now;
            let since = oldest_queued_since(shard, name, &entries, now).await?;
            since.map(|since| now.0.saturating_sub(since).max(0))
        }
    };
    let counts = record.unwrap_or_default().counts;
    Ok(ShardPart { is_known, settings, counts, oldest_ready_age_ms, is_unreadable })
}

const POSITION_FIELDS: [&str; 3] = [fields::PLACEMENT, fields::QUEUED_SINCE, fields::EXPIRES_AT];

/// Returns the time since which a task has had its queue position. `None`: the task has expired, or has no such time.
fn queued_since(task: &TaskHash, now: TimestampMs) -> Option<i64> {
    if task.int(fields::EXPIRES_AT).is_some_and(|expires_at| expires_at <= now.0) {
        return None;
    }
    let ready_at = task.int(fields::READY_AT)?;
    let released = task.text(fields::QUEUED_SINCE).and_then(|released| released.split_once(' '));
    let since = released.filter(|(valid_for, _)| valid_for.parse() == Ok(ready_at));
    Some(since.and_then(|(_, since)| since.parse().ok()).unwrap_or(ready_at))
}

/// Slot queues that are searched behind an expired first task, and the tasks searched in each.
const MAX_SEARCHED_SLOTS: usize = 16;
const MAX_SEARCHED_TASKS: isize = 100;

/// Returns the earliest time in ms since which a first task of these wheel entries has had its queue position. A
/// released task keeps the time of its position, because the tasks behind it have waited as long. A task that has expired
/// by `now` waits no more: the task behind it counts, if it is among the next 100.
pub(super) async fn oldest_queued_since(
    shard: &Shard,
    name: &QueueName,
    entries: &[String],
    now: TimestampMs,
) -> Result<Option<i64>> {
    let entries = entries.iter().filter(|entry| parse_wheel_member(entry).is_some());
    let slots: Vec<Vec<u8>> = entries.map(|entry| shard.keys.slot_queue(name, entry)).collect();
    let firsts = first_queued_since(shard, &slots, 0..=0, now).await?;
    let expired: Vec<Vec<u8>> =
        slots.into_iter().zip(&firsts).filter(|(_, first)| first.is_none()).map(|(slot, _)| slot).collect();
    let searched = expired.get(..MAX_SEARCHED_SLOTS).unwrap_or(&expired);
    let behind = first_queued_since(shard, searched, 1..=MAX_SEARCHED_TASKS, now).await?;
    Ok(firsts.into_iter().chain(behind).flatten().min())
}

/// The members of a keyed slot queue among which its first tasks by seq are found.
const KEYED_SAMPLE: isize = 32;

/// Returns for each slot queue the time since which its first task within `ranks` that has not expired has had its
/// position. Of a keyed slot queue, tasks are ranked by seq among the first 32 members, and one more for each rank.
async fn first_queued_since(
    shard: &Shard,
    slots: &[Vec<u8>],
    ranks: RangeInclusive<isize>,
    now: TimestampMs,
) -> Result<Vec<Option<i64>>> {
    let mut found = Vec::with_capacity(slots.len());
    if slots.is_empty() {
        return Ok(found);
    }
    let mut heads = pipe();
    for slot in slots {
        let (first, last) =
            if slot.ends_with(b":k") { (0, KEYED_SAMPLE + ranks.end()) } else { (*ranks.start(), *ranks.end()) };
        heads.cmd("ZRANGE").arg(slot).arg(first).arg(last);
    }
    // The slot queue of each task, by its index.
    let (mut times, mut owners) = (pipe(), Vec::new());
    for (index, list) in shard.send_pipeline(&heads).await?.into_iter().enumerate() {
        found.push(None);
        let members = if_readable(read_list(list))?.into_iter().flatten().map(bytes).collect::<Result<Vec<_>>>()?;
        let mut keyed: Vec<KeyedMember> = members.iter().filter_map(|member| KeyedMember::parse(member)).collect();
        keyed.sort_unstable_by_key(|member| member.seq);
        let keyed = keyed.into_iter().map(|member| member.id);
        let ranked = keyed.skip(*ranks.start() as usize).take(ranks.clone().count());
        let keyless = members.iter().filter_map(|member| TaskId::from_bytes(member));
        for id in keyless.chain(ranked) {
            owners.push((index, id));
            times.cmd("HMGET").arg(shard.keys.task(&id)).arg(&POSITION_FIELDS);
        }
    }
    if owners.is_empty() {
        return Ok(found);
    }
    for ((index, id), reply) in owners.into_iter().zip(shard.send_pipeline(&times).await?) {
        let task = if_readable(TaskHash::parse_named(id, &POSITION_FIELDS, reply))?.flatten();
        let since = task.and_then(|task| queued_since(&task, now));
        if let Some(first @ None) = found.get_mut(index) {
            *first = since;
        }
    }
    Ok(found)
}

/// Returns at most `limit` queue names after `after`, in order.
pub async fn queue_names(store: &Store, after: Option<&QueueName>, limit: usize) -> Result<Vec<QueueName>> {
    let reads = store.shards().iter().map(|shard| async move {
        let mut command = cmd("ZRANGEBYLEX");
        let from = after.map_or("-".to_owned(), |name| format!("({name}"));
        command.arg(shard.keys.queues()).arg(from).arg("+").arg(&["LIMIT", "0"]).arg(limit);
        read_list(shard.send(&command).await?)
    });
    let mut names = BTreeSet::new();
    for list in try_join_all(reads).await? {
        names.extend(list.filter_map(|name| QueueName::parse(&text(name).ok()?)));
    }
    Ok(names.into_iter().take(limit).collect())
}

/// The settings of a queue at a version. `None`: they were removed at this version.
pub type VersionedSettings = (QueueName, i64, Option<QueueSettings>);

/// Master copies of settings.
#[derive(Debug)]
pub struct SettingsPage {
    /// Those that can be read.
    pub settings: Vec<VersionedSettings>,
    /// The last entry of the page in the index, whether or not it can be read. `None`: there are no further entries.
    pub last: Option<Vec<u8>>,
}

/// Reads the master copies of at most `limit` entries after `after`.
pub async fn settings_page(store: &Store, after: Option<&[u8]>, limit: usize) -> Result<SettingsPage> {
    let first_shard = store.first_shard();
    let from = after.map_or(b"-".to_vec(), |after| [b"(", after].concat());
    let mut command = cmd("ZRANGEBYLEX");
    command.arg(first_shard.keys.settings_index()).arg(from).arg("+").arg(&["LIMIT", "0"]).arg(limit);
    let members = read_list(first_shard.send(&command).await?)?.map(bytes).collect::<Result<Vec<_>>>()?;
    let names: Vec<QueueName> =
        members.iter().filter_map(|name| QueueName::parse(str::from_utf8(name).ok()?)).collect();
    let settings = read_settings(first_shard, &names, |name| first_shard.keys.settings(name)).await?;
    let last = members.into_iter().nth(limit.saturating_sub(1));
    Ok(SettingsPage { settings, last })
}

/// Returns version and settings of the queue's master copy. `None`: no setting was made, or all were removed.
pub async fn master_settings(store: &Store, name: &QueueName) -> Result<Option<(i64, QueueSettings)>> {
    let first_shard = store.first_shard();
    let found = read_settings(first_shard, std::slice::from_ref(name), |name| first_shard.keys.settings(name)).await?;
    Ok(found.into_iter().next().and_then(|(_, version, settings)| Some((version, settings?))))
}

/// Returns the versions of the shard's copies of the settings of these queues.
pub async fn copy_versions(shard: &Shard, names: &[QueueName]) -> Result<BTreeMap<QueueName, i64>> {
    let found = read_settings(shard, names, |name| shard.keys.settings_copy(name)).await?;
    Ok(found.into_iter().map(|(name, version, _)| (name, version)).collect())
}

async fn read_settings(
    shard: &Shard,
    names: &[QueueName],
    key: impl Fn(&QueueName) -> Vec<u8>,
) -> Result<Vec<VersionedSettings>> {
    if names.is_empty() {
        return Ok(Vec::new());
    }
    let mut pipeline = pipe();
    for name in names {
        pipeline.cmd("HMGET").arg(key(name)).arg(&["version", "removed_at"]).arg(&settings::FIELDS);
    }
    let mut found = Vec::new();
    for (name, reply) in names.iter().zip(shard.send_pipeline(&pipeline).await?) {
        let Some(mut fields) = if_readable(read_list(reply))? else { continue };
        let (version, removed_at) = (fields.value()?, bytes(fields.value()?).unwrap_or_default());
        if matches!(version, Value::Nil) {
            continue;
        }
        let settings = settings::decode(&mut fields)?;
        let Some(version) = if_readable(int(version))? else { continue };
        found.push((name.clone(), version, removed_at.is_empty().then_some(settings)));
    }
    Ok(found)
}

/// Returns the next tasks of the queue in `state` for a purge, at most `limit` (at least 1).
pub async fn purgeable(shard: &Shard, queue: &QueueName, state: State, limit: usize) -> Result<Vec<TaskId>> {
    if state == State::Ready {
        return super::ready::first_ready(shard, queue, limit).await;
    }
    let positions = super::page::page_by_time(shard, queue, state, None, limit).await?;
    Ok(positions.into_iter().map(|position| position.id).collect())
}
