//! Ready tasks in the order of a list: by priority and slot; in a slot those without a key by seq, then those with one by the
//! digest of the key and seq.

use deadpool_redis::redis::cmd;

use super::queue_records::{KEYED, KeyedMember, parse_wheel_member};
use crate::domain::digest::KeyDigest;
use crate::domain::id::TaskId;
use crate::domain::queue::QueueName;
use crate::domain::slot::Slot;
use crate::store::Store;
use crate::store::error::Result;
use crate::store::redis::reply::{int, read_list, text};
use crate::store::redis::script::{Script, script};
use crate::store::shard::Shard;

pub(in crate::store) static SCRIPT: Script = script!(read "ready", ["clock", "transaction", "records", "piece_functions", ("local function use_pieces()" ["pieces"])]);

/// A position among ready tasks.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct ReadyPosition {
    /// The priority. 9 comes first.
    pub priority: u8,
    /// The slot. The lowest comes first.
    pub slot: Slot,
    /// The digest of the key. Tasks without one come first.
    pub key_digest: Option<KeyDigest>,
    /// The sequence number. The lowest comes first.
    pub seq: i64,
}

/// A slot queue of one priority: the slot, and whether it is the keyed one.
type SlotQueue = (u16, bool);

/// The maximum number of slot queues that one call reads without knowing whether they have tasks.
const MAX_SLOT_PROBES: u16 = 4096;
/// The maximum number of entries for which the wheel is read whole.
const MAX_WHEEL_ENTRIES: i64 = 1024;

/// Returns at most `limit` ready tasks of `queue` after `after`, in the order of their positions, and the position to
/// continue from. `None`: there are no more. A page before the last may be short or empty, because the work of a call
/// is bounded.
pub async fn ready_tasks(
    store: &Store,
    queue: &QueueName,
    after: Option<ReadyPosition>,
    limit: usize,
) -> Result<(Vec<TaskId>, Option<ReadyPosition>)> {
    let mut page = Page { queue, after, limit, probes_left: MAX_SLOT_PROBES, ids: Vec::new() };
    let start = after.map_or(9, |position| position.priority);
    for priority in (0..=start).rev() {
        for shard in store.shards() {
            let (first, last) = store.layout().slot_range(shard.index);
            let resume = after.filter(|position| position.priority == priority);
            let from = resume.map_or(first, |position| position.slot.number().max(first));
            if from > last {
                continue;
            }
            let end = match occupied_slots(shard, queue, priority, from, last).await? {
                OccupiedSlots::Known(slots) => page.fill(shard, priority, &slots, false).await?,
                OccupiedSlots::TooMany => {
                    let all: Vec<SlotQueue> = (from..=last).flat_map(|slot| [(slot, false), (slot, true)]).collect();
                    page.fill(shard, priority, &all, true).await?
                }
            };
            if end.is_some() {
                return Ok((page.ids, end));
            }
        }
    }
    Ok((page.ids, None))
}

/// A page of ready tasks under construction.
struct Page<'a> {
    queue: &'a QueueName,
    after: Option<ReadyPosition>,
    limit: usize,
    /// The number of slot queues that may still be read without knowing whether they have tasks.
    probes_left: u16,
    ids: Vec<TaskId>,
}

impl Page<'_> {
    /// Adds the tasks of these slot queues, in chunks that grow while they have few tasks. Returns the position at which the
    /// page ends, because it is full or no probes are left.
    async fn fill(
        &mut self,
        shard: &Shard,
        priority: u8,
        slots: &[SlotQueue],
        is_probing: bool,
    ) -> Result<Option<ReadyPosition>> {
        let (mut remaining, mut step) = (slots, 2);
        while !remaining.is_empty() {
            let (chunk, tail) = remaining.split_at(step.min(remaining.len()));
            (remaining, step) = (tail, (step * 2).min(64));
            let slots: Vec<(SlotQueue, Vec<u8>)> =
                chunk.iter().filter_map(|slot| Some((*slot, self.start_of(priority, *slot)?))).collect();
            let room = self.limit - self.ids.len();
            let positions = read_positions(shard, self.queue, priority, &slots, room).await?;
            self.ids.extend(positions.iter().map(|(id, _)| *id));
            if let Some((_, position)) = positions.last().filter(|_| positions.len() == room) {
                return Ok(Some(*position));
            }
            if is_probing {
                self.probes_left = self.probes_left.saturating_sub(chunk.len() as u16);
            }
            if self.probes_left == 0 {
                // After all tasks of the last slot queue.
                let last = chunk.last().and_then(|(slot, is_keyed)| Some((Slot::new(*slot)?, *is_keyed)));
                return Ok(last.map(|(slot, is_keyed)| ReadyPosition {
                    priority,
                    slot,
                    key_digest: is_keyed.then_some(KeyDigest::MAX),
                    seq: if is_keyed { MAX_KEYED_SEQ } else { MAX_SEQ },
                }));
            }
        }
        Ok(None)
    }

    /// Returns where the slot queue is read from, as the script takes it. `None`: the pages before have all of it.
    fn start_of(&self, priority: u8, (slot, is_keyed): SlotQueue) -> Option<Vec<u8>> {
        let after = self.after.filter(|after| after.priority == priority && after.slot.number() == slot);
        match (is_keyed, after.map(|after| (after.key_digest, after.seq))) {
            (false, None) => Some(b"-1".to_vec()),
            (false, Some((None, seq))) => Some(seq.to_string().into_bytes()),
            (false, Some((Some(_), _))) => None,
            (true, Some((Some(key_digest), seq))) => Some(KeyedMember::place(key_digest, seq)),
            (true, _) => Some(Vec::new()),
        }
    }
}

/// The highest sequence number: scores are exact up to it.
pub const MAX_SEQ: i64 = (1 << 53) - 1;
/// The highest one in a keyed slot queue, where it has 6 bytes.
pub const MAX_KEYED_SEQ: i64 = (1 << 48) - 1;

enum OccupiedSlots {
    /// The slot queues with tasks in order.
    Known(Vec<SlotQueue>),
    /// Too many to read from the wheel: each slot is probed.
    TooMany,
}

/// Returns the slot queues of the slots from..=last that have ready tasks of this priority.
async fn occupied_slots(shard: &Shard, queue: &QueueName, priority: u8, from: u16, last: u16) -> Result<OccupiedSlots> {
    let width = 1i64 << 49;
    let low = i64::from(9 - priority) * width;
    let wheel = shard.keys.wheel(queue);
    let end = format!("({}", low + width);
    let count = int(shard.send(cmd("ZCOUNT").arg(&wheel).arg(low).arg(&end)).await?)?;
    if count > MAX_WHEEL_ENTRIES {
        return Ok(OccupiedSlots::TooMany);
    }
    let entries = read_list(shard.send(cmd("ZRANGEBYSCORE").arg(&wheel).arg(low).arg(&end)).await?)?;
    let mut slots = Vec::new();
    for entry in entries {
        if let Some((list, slot)) = parse_wheel_member(&text(entry)?)
            && (from..=last).contains(&slot)
        {
            slots.push((slot, list >= KEYED));
        }
    }
    slots.sort_unstable();
    Ok(OccupiedSlots::Known(slots))
}

/// Returns at most `limit` ready tasks of these slot queues of one priority, in order. Each begins where it says.
async fn read_positions(
    shard: &Shard,
    queue: &QueueName,
    priority: u8,
    slots: &[(SlotQueue, Vec<u8>)],
    limit: usize,
) -> Result<Vec<(TaskId, ReadyPosition)>> {
    let mut arguments: Vec<Vec<u8>> = vec![queue.as_str().into()];
    arguments.extend([i64::from(priority), limit as i64, slots.len() as i64].map(|n| n.to_string().into_bytes()));
    for ((slot, is_keyed), start) in slots {
        let name = if *is_keyed { format!("{slot}:k") } else { slot.to_string() };
        arguments.extend([name.into_bytes(), start.clone()]);
    }
    let reply = read_list(shard.read_script(&SCRIPT, arguments).await?)?;
    let mut positions = Vec::new();
    for (((slot, is_keyed), _), found) in slots.iter().zip(reply) {
        let (mut found, Some(slot)) = (read_list(found)?, Slot::new(*slot)) else { continue };
        while found.len() > 0 {
            if *is_keyed {
                let Some(KeyedMember { key_digest, seq, id }) = KeyedMember::parse(&found.bytes()?) else { continue };
                positions.push((id, ReadyPosition { priority, slot, key_digest: Some(key_digest), seq }));
            } else {
                positions.push((found.id()?, ReadyPosition { priority, slot, key_digest: None, seq: found.int()? }));
            }
        }
    }
    Ok(positions)
}

/// Returns the first ready tasks of the queue in the order of its wheel, slot by slot: at most `limit`.
pub(super) async fn first_ready(shard: &Shard, queue: &QueueName, limit: usize) -> Result<Vec<TaskId>> {
    let mut ids = Vec::new();
    let wheel = read_list(shard.send(cmd("ZRANGE").arg(shard.keys.wheel(queue)).arg(0).arg(limit - 1)).await?)?;
    for entry in wheel {
        let Some((list, slot)) = parse_wheel_member(&text(entry)?) else { continue };
        let (priority, start) = match list.checked_sub(KEYED) {
            Some(priority) => (priority, ((slot, true), Vec::new())),
            None => (list, ((slot, false), b"-1".to_vec())),
        };
        let positions = read_positions(shard, queue, priority, &[start], limit - ids.len()).await?;
        ids.extend(positions.into_iter().map(|(id, _)| id));
        if ids.len() >= limit {
            break;
        }
    }
    Ok(ids)
}
