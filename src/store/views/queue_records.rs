//! The records of queues and of shards: counts of tasks, and what a claim needs to know before it looks.

use std::collections::{BTreeMap, BTreeSet};

use deadpool_redis::redis::{Value, cmd};

use crate::domain::digest::KeyDigest;
use crate::domain::id::TaskId;
use crate::domain::limits;
use crate::domain::queue::QueueName;
use crate::domain::slot::Slot;
use crate::domain::state::State;
use crate::store::error::{Error, Result, if_readable};
use crate::store::layout::{Decoded, PASS, PIECE, PIECES, QUEUE, SHARD, pass, pieces, queue, shard};
use crate::store::redis::reply::{mismatch, read_list};
use crate::store::shard::Shard;

/// Numbers of tasks. `submitted` is the sum of all others.
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
    pub deleted: i64,
}

impl Counts {
    /// Reads the counts of a queue or of a shard, which are in the same places.
    fn of(record: Decoded<'_>) -> Self {
        let count = |field: queue::Field| signed(record.uint(field));
        Counts {
            submitted: count(queue::Field::submitted),
            scheduled: count(queue::Field::scheduled),
            ready: count(queue::Field::ready),
            leased: count(queue::Field::leased),
            completed: count(queue::Field::completed),
            dead: count(queue::Field::dead),
            cancelled: count(queue::Field::cancelled),
            expired: count(queue::Field::expired),
            deleted: count(queue::Field::deleted),
        }
    }

    fn values_mut(&mut self) -> [&mut i64; 9] {
        let Counts { submitted, scheduled, ready, leased, completed, dead, cancelled, expired, deleted } = self;
        [submitted, scheduled, ready, leased, completed, dead, cancelled, expired, deleted]
    }

    /// Returns the number of tasks in one state.
    pub fn in_state(&self, state: State) -> i64 {
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
    pub fn merge(&mut self, mut other: Counts) {
        for (sum, count) in self.values_mut().into_iter().zip(other.values_mut()) {
            *sum = sum.saturating_add(*count);
        }
    }
}

/// A list of a queue: priority and slot of a slot queue; the same with [`KEYED`] added to the priority for a keyed one; or a
/// number from 10 on and 0 for the ended tasks of a state.
pub type ListName = (u8, u16);

/// The first number of keyed slot queues.
pub const KEYED: u8 = 20;

/// Returns the name of a slot queue on the wheel: `<priority>:<slot>`, and `:k` behind it if it is a keyed one.
pub fn wheel_member((list, slot): ListName) -> String {
    match list.checked_sub(KEYED) {
        Some(priority) => format!("{priority}:{slot}:k"),
        None => format!("{list}:{slot}"),
    }
}

/// Returns the slot queue with this name on the wheel. `None`: it is malformed.
pub fn parse_wheel_member(member: &str) -> Option<ListName> {
    let (priority, slot) = member.split_once(':')?;
    let (slot, first) = slot.strip_suffix(":k").map_or((slot, 0), |slot| (slot, KEYED));
    let priority: u8 = priority.parse().ok().filter(|priority| *priority <= 9)?;
    Some((priority + first, Slot::new(slot.parse().ok()?)?.number()))
}

/// A member of a keyed slot queue.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct KeyedMember {
    /// The digest of the key.
    pub key_digest: KeyDigest,
    /// The position. From 2^47 on the task was set back, and its position is by that less.
    pub seq: i64,
    /// The task.
    pub id: TaskId,
}

impl KeyedMember {
    /// Reads a member. `None`: it is malformed.
    pub fn parse(bytes: &[u8]) -> Option<Self> {
        let (key_digest, rest) = bytes.split_at_checked(KeyDigest::BYTES)?;
        let (seq, id) = rest.split_at_checked(6)?;
        let seq = seq.iter().fold(0, |seq, byte| seq << 8 | i64::from(*byte));
        Some(KeyedMember { key_digest: KeyDigest::from_bytes(key_digest)?, seq, id: TaskId::from_bytes(id)? })
    }

    /// Returns the bytes of a place in a keyed slot queue: the start of the member there.
    pub fn place(key_digest: KeyDigest, seq: i64) -> Vec<u8> {
        key_digest.as_bytes().iter().chain(seq.to_be_bytes().iter().skip(2)).copied().collect()
    }

    /// Returns the bytes of the member.
    pub fn to_bytes(self) -> Vec<u8> {
        [&Self::place(self.key_digest, self.seq)[..], self.id.as_bytes()].concat()
    }
}

/// The numbers of the lists of ended tasks.
const ENDED_LISTS: [(u8, State); 4] =
    [(10, State::Completed), (11, State::Dead), (12, State::Cancelled), (13, State::Expired)];

/// Returns the list of the ended tasks in this state. `None`: tasks in this state have not ended.
pub fn ended_list(state: State) -> Option<ListName> {
    ENDED_LISTS.iter().find(|(_, ended)| *ended == state).map(|(list, _)| (*list, 0))
}

/// Returns the state of the tasks in this list. `None`: it is a slot queue.
pub fn state_of_list(list: ListName) -> Option<State> {
    ENDED_LISTS.iter().find(|(number, _)| *number == list.0).map(|(_, state)| *state)
}

/// The pieces of a list.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Pieces {
    /// The number of the first piece behind the head.
    pub first: i64,
    /// The number of the last one.
    pub last: i64,
}

/// The record of a queue in a shard.
#[derive(Clone, PartialEq, Eq, Default, Debug)]
pub struct QueueRecord {
    /// Its tasks.
    pub counts: Counts,
    /// The priority at the front of its wheel. `None`: it has no ready tasks.
    pub front: Option<u8>,
    /// Its time in the index of due queues, in ms. `None`: it is not there.
    pub due: Option<i64>,
    /// Whether it is paused.
    pub paused: bool,
    /// The last position in a slot queue.
    pub seq: i64,
    /// The last positions of the ends of completed, dead, cancelled and expired tasks.
    pub ends: [i64; 4],
    /// The keyed slot queues over whose keys a pass is in the middle.
    pub passes: BTreeSet<ListName>,
    /// The lists that may have pieces.
    pub pieces: BTreeMap<ListName, Pieces>,
    ended_flags: u64,
}

impl QueueRecord {
    /// Returns the number of the piece in which the task at this position of a list is. `None`: it is in the head.
    pub fn piece_of(&self, list: ListName, seq: i64) -> Option<i64> {
        let pieces = self.pieces.get(&list)?;
        Some(seq.div_euclid(PIECE)).filter(|piece| *piece >= pieces.first)
    }

    /// The states whose ended tasks are in the index `ended_due`.
    pub fn ended_states(&self) -> impl Iterator<Item = State> {
        let flags = self.ended_flags;
        let states = [(State::Completed, 2), (State::Dead, 4), (State::Cancelled, 8), (State::Expired, 16)];
        states.into_iter().filter_map(move |(state, flag)| (flags & flag != 0).then_some(state))
    }
}

/// The record of a shard.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub struct ShardRecord {
    /// The tasks of all queues together, deleted queues included.
    pub counts: Counts,
    /// The last turn on a wheel. 0: no turn was taken.
    pub turn: i64,
}

/// Decodes a field of `callers`. A missing record is one of zeros.
///
/// # Errors
/// [`Error::Unexpected`] if it is unreadable.
pub(in crate::store) fn decode_queue(field: &Value) -> Result<QueueRecord> {
    let Some(bytes) = bytes_of(field)? else { return Ok(QueueRecord::default()) };
    let record = QUEUE.decode(bytes)?;
    let due = signed(record.uint(queue::Field::due));
    let front = u8::try_from(record.uint(queue::Field::front)).unwrap_or(0).checked_sub(1);
    let pass_bytes = record.uint(queue::Field::passes) as usize * PASS.bytes();
    let (passes, pieces) = record
        .tail()
        .split_at_checked(pass_bytes)
        .ok_or_else(|| Error::Unexpected("the record of a queue ends within its passes".into()))?;
    Ok(QueueRecord {
        counts: Counts::of(record),
        front,
        due: (due != 0).then_some(due),
        paused: record.uint(queue::Field::flags) % 2 == 1,
        seq: signed(record.uint(queue::Field::seq)),
        ends: [
            queue::Field::completed_ends,
            queue::Field::dead_ends,
            queue::Field::cancelled_ends,
            queue::Field::expired_ends,
        ]
        .map(|field| signed(record.uint(field))),
        passes: passes.chunks(PASS.bytes()).map(decode_pass).collect::<Result<_>>()?,
        pieces: pieces.chunks(PIECES.bytes()).map(decode_pieces).collect::<Result<_>>()?,
        ended_flags: record.uint(queue::Field::flags) & !1,
    })
}

fn decode_pass(bytes: &[u8]) -> Result<ListName> {
    let record = PASS.decode(bytes)?;
    let [list, slot] = [pass::Field::list, pass::Field::slot].map(|field| record.uint(field));
    Ok((list as u8, slot as u16))
}

fn decode_pieces(bytes: &[u8]) -> Result<(ListName, Pieces)> {
    let record = PIECES.decode(bytes)?;
    let [list, slot] = [pieces::Field::list, pieces::Field::slot].map(|field| record.uint(field));
    let [first, next] = [pieces::Field::first, pieces::Field::next].map(|field| signed(record.uint(field)));
    Ok(((list as u8, slot as u16), Pieces { first, last: (next - 1).div_euclid(PIECE) }))
}

/// The same for the record of a shard.
pub(in crate::store) fn decode_shard(field: &Value) -> Result<ShardRecord> {
    let Some(bytes) = bytes_of(field)? else { return Ok(ShardRecord::default()) };
    let record = SHARD.decode(bytes)?;
    Ok(ShardRecord { counts: Counts::of(record), turn: signed(record.uint(shard::Field::turn)) })
}

fn bytes_of(field: &Value) -> Result<Option<&[u8]>> {
    match field {
        Value::Nil => Ok(None),
        Value::BulkString(bytes) => Ok(Some(bytes)),
        other => Err(mismatch("a record", other)),
    }
}

fn signed(number: u64) -> i64 {
    i64::try_from(number).unwrap_or(i64::MAX)
}

/// The field of `callers` with the record of the queue.
pub(in crate::store) fn queue_field(queue: &QueueName) -> String {
    format!("queue:{queue}")
}

/// Returns the shard's records of these queues, in order; `None` for unreadable ones.
pub async fn queue_records(shard: &Shard, queues: &[QueueName]) -> Result<Vec<Option<QueueRecord>>> {
    let mut found = Vec::with_capacity(queues.len());
    for chunk in queues.chunks(limits::MAX_CALL_ITEMS) {
        let mut command = cmd("HMGET");
        command.arg(shard.keys.callers());
        for queue in chunk {
            command.arg(queue_field(queue));
        }
        for field in read_list(shard.send(&command).await?)? {
            found.push(if_readable(decode_queue(&field))?);
        }
    }
    Ok(found)
}

/// Returns the record of the shard.
///
/// # Errors
/// [`crate::store::Error::Unexpected`] if it is unreadable.
pub async fn shard_record(shard: &Shard) -> Result<ShardRecord> {
    decode_shard(&shard.send(cmd("HGET").arg(shard.keys.callers()).arg("shard")).await?)
}

/// Returns those of `queues` that have claimable tasks in this shard, with the highest priority. An unreadable queue is among
/// them, because a claim of it fails and tells the reason.
pub async fn ready_queues(shard: &Shard, queues: &[QueueName]) -> Result<Vec<(QueueName, u8)>> {
    let records = queues.iter().zip(queue_records(shard, queues).await?);
    let priority = |record: Option<QueueRecord>| match record {
        Some(record) => record.front.filter(|_| !record.paused),
        None => Some(0),
    };
    Ok(records.filter_map(|(queue, record)| Some((queue.clone(), priority(record)?))).collect())
}
