//! Bounds the history: deletes the tasks that ended first when the memory of Redis is short, or when a queue has more
//! ended tasks than are kept.
//!
//! A task is kept for at least 10 s after its end, because repeated reports and waiting requests rely on it. Servers may
//! delete at the same time: the script that deletes checks each task again.

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use deadpool_redis::redis::cmd;
use futures_util::future::join_all;

use super::error::{Error, Result};
use super::memory::{MemoryReading, ROOM_PERCENT};
use super::ops::delete::{DeleteReason, delete_readable};
use super::redis::reply::text;
use super::shard::{Caller, Shard, Store};
use super::views::ended::{EndedList, ended_lists, oldest_ended};
use super::views::next_due::next_due;
use super::views::queue_records::{Counts, queue_records, shard_record};
use super::views::queues::queue_names;
use crate::domain::id::TaskId;
use crate::domain::limits;
use crate::domain::queue::QueueName;
use crate::domain::state::State;

/// The time for one making of room. The next one continues.
const MAX_TIME: Duration = Duration::from_millis(500);
/// The pause after a making of room that found no task to delete.
const RETRY_DELAY: Duration = Duration::from_millis(200);
/// Shards of a master that make room at the same time.
const SHARDS_AT_ONCE: usize = 16;
/// Queues read by one call, and by one making of room.
const QUEUES_PER_CALL: usize = 250;
const MAX_QUEUES: usize = 5000;
/// Lists of ended tasks that are read together.
const LISTS_PER_READ: usize = 50;
/// The interval of samples, and the tasks of each.
const SAMPLE_INTERVAL: Duration = Duration::from_secs(5);
const SAMPLES: usize = 10;
/// Bytes of an ended task in the indexes.
const INDEX_BYTES: u64 = 200;

/// Reads the memory of the shard's master, and keeps the reading.
///
/// # Errors
/// The error of the call; [`Error::Denied`] if Redis does not allow INFO.
pub async fn read_memory(shard: &Shard) -> Result<MemoryReading> {
    let command = cmd("INFO").arg("server").arg("memory").to_owned();
    let info = text(shard.client().send_to_master_of(shard.keys.base(), &command).await?)?;
    let reading = MemoryReading::parse(&info).ok_or_else(|| Error::Unexpected("INFO has no memory".into()))?;
    shard.memory.set_reading(reading.clone());
    Ok(reading)
}

/// Estimates the history of the shard from a sample, unless that was done less than 5 s ago.
pub async fn sample_history(shard: &Shard) -> Result<()> {
    if shard.memory.needs_sample(SAMPLE_INTERVAL) {
        let read = ended_lists(shard, None, 0, SAMPLES).await?;
        let (sampled, bytes) = read.sample;
        shard.memory.add_sample(read.total, sampled, bytes + sampled * INDEX_BYTES);
    }
    Ok(())
}

/// Deletes the tasks of the shard that ended first, until at most `until_percent` of the limit is in use. Returns their
/// number: 0 if nothing is left to delete. Concurrent calls share one run.
///
/// # Errors
/// The first error of a call. Tasks deleted before it stay deleted.
pub async fn make_room(shard: &Shard, until_percent: u64) -> Result<u64> {
    let gauge = &shard.memory;
    let called_at = Instant::now();
    let mut caller = gauge.making_room.lock().await;
    if let Some(deleted) = gauge.made_room_since(called_at) {
        return Ok(deleted);
    }
    if called_at.checked_sub(RETRY_DELAY).and_then(|since| gauge.made_room_since(since)) == Some(0) {
        return Ok(0);
    }
    let deleted = delete_oldest(shard, &mut caller, until_percent).await?;
    gauge.set_made_room(deleted);
    Ok(deleted)
}

/// Makes room for a call that Redis rejected in `shard`: in this shard, and at the same time in others on the same
/// master. Returns whether tasks were deleted since. Takes at most about a second.
pub async fn has_made_room_for(store: &Store, shard: &Shard) -> bool {
    let (before, from) = store.shards().split_at(shard.index);
    let neighbours: Vec<&Shard> = from.iter().chain(before).filter(|other| is_neighbour(store, shard, other)).collect();
    let started = Instant::now();
    for group in neighbours.chunks(SHARDS_AT_ONCE) {
        let made = join_all(group.iter().map(|neighbour| make_room(neighbour, ROOM_PERCENT))).await;
        // A shard that fails keeps no other from making room.
        if made.into_iter().flatten().any(|deleted| deleted > 0) {
            return true;
        }
        if started.elapsed() > MAX_TIME {
            break;
        }
    }
    false
}

/// Whether both shards are known to lie on one master.
fn is_neighbour(store: &Store, shard: &Shard, other: &Shard) -> bool {
    let master = |shard: &Shard| shard.memory.reading().map(|reading| reading.master);
    shard.index == other.index
        || !store.client().is_cluster()
        || master(shard).is_some_and(|known| master(other) == Some(known))
}

async fn delete_oldest(shard: &Shard, caller: &mut Caller, until_percent: u64) -> Result<u64> {
    let started = Instant::now();
    let (mut deleted, mut batch) = (0, shard.memory.first_batch);
    let mut history: Option<OldestFirst> = None;
    // A call that Redis has rejected needs room, also if its own buffers were what exceeded the limit.
    while started.elapsed() < MAX_TIME && (deleted == 0 || is_above(shard, until_percent).await?) {
        let oldest = match &mut history {
            Some(oldest) => oldest,
            None => history.insert(OldestFirst::read(shard).await?),
        };
        let ids = oldest.next(shard, batch).await?;
        if ids.is_empty() {
            break;
        }
        deleted += delete_readable(shard, caller, &DeleteReason::MemoryShort, &ids).await? as u64;
        batch = (2 * batch).min(limits::MAX_CALL_ITEMS);
    }
    Ok(deleted)
}

/// Whether more than this share of the memory is in use. Unknown without the permission for INFO: then a call that fits is
/// room enough.
async fn is_above(shard: &Shard, percent: u64) -> Result<bool> {
    match read_memory(shard).await {
        Err(Error::Denied(_) | Error::Unexpected(_)) => Ok(false),
        reading => Ok(reading?.is_above(percent)),
    }
}

/// The ended tasks of a shard in the order of their ends. Of more than 5000 queues, each run takes the next 5000.
struct OldestFirst {
    lists: BTreeSet<EndedList>,
    /// Tasks that ended later are kept.
    until: i64,
}

impl OldestFirst {
    async fn read(shard: &Shard) -> Result<Self> {
        let until = next_due(shard).await?.now.0 - limits::RETAIN_MS.min;
        let (mut lists, mut after) = (BTreeSet::new(), shard.memory.after());
        for _ in 0..MAX_QUEUES / QUEUES_PER_CALL {
            let page = ended_lists(shard, after.as_ref(), QUEUES_PER_CALL, 0).await?;
            lists.extend(page.lists);
            let began_later = after.is_some();
            after = page.last;
            if after.is_none() && !(began_later && lists.is_empty()) {
                break;
            }
        }
        shard.memory.set_after(after);
        Ok(OldestFirst { lists, until })
    }

    /// Returns at most `limit` tasks that ended first of those not returned yet. Empty: nothing old is left.
    async fn next(&mut self, shard: &Shard, limit: usize) -> Result<Vec<TaskId>> {
        loop {
            let mut chosen = Vec::new();
            while chosen.len() < LISTS_PER_READ
                && self.lists.first().is_some_and(|list| list.oldest <= self.until)
                && let Some(list) = self.lists.pop_first()
            {
                chosen.push(list);
            }
            if chosen.is_empty() {
                return Ok(Vec::new());
            }
            // A list that was not chosen has no task that ended before this time.
            let until = self.lists.first().map_or(self.until, |next| next.oldest.min(self.until));
            let pages = oldest_ended(shard, &chosen, until, limit).await?;
            let mut found: Vec<(i64, TaskId)> = pages.iter().flatten().copied().collect();
            found.sort_unstable();
            found.truncate(limit);
            let last = found.last().copied();
            for (list, page) in chosen.into_iter().zip(pages) {
                let rest = page.iter().find(|entry| last.is_some_and(|last| **entry > last));
                let is_whole = page.len() < limit;
                let oldest = match (rest, page.last()) {
                    (Some((ended_at, _)), _) => *ended_at,
                    (None, Some((ended_at, _))) if !is_whole => *ended_at,
                    (None, _) => until.saturating_add(1),
                };
                self.lists.insert(EndedList { oldest, ..list });
            }
            if !found.is_empty() {
                return Ok(found.into_iter().map(|(_, id)| id).collect());
            }
        }
    }
}

/// Deletes the oldest ended tasks of queues that have more than `max` in one state, over all shards. Examines at most
/// 5000 queues after `after`. Returns the last one; `None` after the last queue.
///
/// # Errors
/// The first error of a call. Tasks deleted before it stay deleted.
pub async fn bound_queues(
    store: &Store,
    caller: &mut Caller,
    max: u64,
    after: Option<QueueName>,
) -> Result<Option<QueueName>> {
    let max = i64::try_from(max).unwrap_or(i64::MAX);
    let ended: Vec<State> = State::ALL.into_iter().filter(|state| state.has_ended()).collect();
    let mut totals = Counts::default();
    for shard in store.shards() {
        totals.merge(shard_record(shard).await?.counts);
    }
    if ended.iter().all(|state| totals.in_state(*state) <= max) {
        return Ok(None);
    }
    let started = Instant::now();
    let mut after = after;
    for _ in 0..MAX_QUEUES / QUEUES_PER_CALL {
        let names = queue_names(store, after.as_ref(), QUEUES_PER_CALL).await?;
        let mut counts = vec![Counts::default(); names.len()];
        for shard in store.shards() {
            for (sum, record) in counts.iter_mut().zip(queue_records(shard, &names).await?) {
                sum.merge(record.unwrap_or_default().counts);
            }
        }
        for (name, counts) in names.iter().zip(&counts) {
            for state in &ended {
                let excess = counts.in_state(*state).saturating_sub(max);
                if excess > 0 {
                    bound_list(store, caller, name, *state, usize::try_from(excess).unwrap_or(0)).await?;
                }
            }
        }
        after = names.last().filter(|_| names.len() == QUEUES_PER_CALL).cloned();
        if after.is_none() || started.elapsed() > MAX_TIME {
            break;
        }
    }
    Ok(after)
}

/// Calls that delete tasks of one list in a run.
const MAX_BOUND_CALLS: usize = 20;

/// Deletes the `excess` oldest ended tasks of a queue in one state, at most about 10,000.
async fn bound_list(
    store: &Store,
    caller: &mut Caller,
    queue: &QueueName,
    state: State,
    mut excess: usize,
) -> Result<()> {
    let until = next_due(store.first_shard()).await?.now.0 - limits::RETAIN_MS.min;
    let list = [EndedList { oldest: 0, queue: queue.clone(), state }];
    let mut calls = 0;
    while excess > 0 && calls < MAX_BOUND_CALLS {
        let limit = excess.min(limits::MAX_CALL_ITEMS);
        let mut found = Vec::new();
        for shard in store.shards() {
            let pages = oldest_ended(shard, &list, until, limit).await?;
            found.extend(pages.into_iter().flatten().map(|(ended_at, id)| (ended_at, id, shard.index)));
        }
        found.sort_unstable();
        found.truncate(limit);
        let mut deleted = 0;
        for shard in store.shards() {
            let here = found.iter().filter(|(_, _, index)| *index == shard.index);
            let ids: Vec<TaskId> = here.map(|(_, id, _)| *id).collect();
            if !ids.is_empty() {
                calls += 1;
                deleted += delete_readable(shard, caller, &DeleteReason::BeyondMaximum, &ids).await?;
            }
        }
        if deleted == 0 {
            return Ok(());
        }
        excess -= deleted.min(excess);
    }
    Ok(())
}
