//! Invariants of the data in Redis, and violations of them.
//!
//! An invariant names the few keys that it is about, so that one script can check or repair it atomically.

use std::fmt;

use deadpool_redis::redis::Value;

use super::error::Result;
use super::redis::reply::{parse_items, read_list};
use crate::domain::id::TaskId;
use crate::domain::queue::QueueName;

/// An invariant, in the order of repairs: later ones count what earlier ones repair.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum Invariant {
    /// A key has the type of its pattern.
    KeyType {
        /// The key without the shard's base.
        key: Vec<u8>,
        /// The name of the type in Redis.
        expected: &'static str,
    },
    /// The fields of a task are readable.
    TaskRecord {
        /// The task.
        id: TaskId,
        /// The violation that was found.
        violation: String,
        /// The document, if it cannot be decoded.
        document: Option<Vec<u8>>,
    },
    /// The record of the shard is readable, and its last turn is not below this one, the highest on a wheel.
    LastTurn(i64),
    /// The last positions of a queue are not below those of its tasks.
    LastSeq {
        /// The queue.
        queue: QueueName,
        /// The highest position of a task.
        seq: i64,
        /// The highest positions of the ends of completed, dead, cancelled and expired tasks.
        ends: [i64; 4],
    },
    /// A member of an index of tasks matches its task.
    IndexEntry {
        /// The task id, the member of a keyed slot queue, or other bytes.
        member: Vec<u8>,
        /// The key of the index without the shard's base.
        index: Vec<u8>,
    },
    /// A task that has not ended has no fields of an ended one.
    StaleEndFields(TaskId),
    /// An ended task without its own retention is deleted in time.
    Retained(TaskId),
    /// A task that waits for another's end waits for a live task, which names it.
    Successor(TaskId),
    /// A dedupe key is held by the right task.
    DedupeKey {
        /// The queue of the tasks that may hold it.
        queue: QueueName,
        /// The digest of the key.
        digest: Vec<u8>,
        /// Unended tasks that name the key.
        ids: Vec<TaskId>,
    },
    /// The record of an Idempotency-Key expires at its time. Holds the digest of the key.
    Idempotency(Vec<u8>),
    /// A queue with settings, and no other, is in the index of settings. Holds the queue's name.
    SettingsIndex(Vec<u8>),
    /// A slot queue with tasks, and no other, is on the wheel.
    WheelEntry {
        /// The queue.
        queue: QueueName,
        /// The name of the slot queue on the wheel.
        member: Vec<u8>,
    },
    /// The record of a queue is readable, and matches the queue, as the indexes of queues do. Holds its name.
    QueueIndexes(Vec<u8>),
    /// The counts of a queue match its tasks.
    QueueCounts {
        /// The queue.
        queue: QueueName,
        /// Slot queues that are missing from its wheel, by their names there.
        unlisted_slots: Vec<String>,
    },
    /// The counts of the shard match those of its queues. Holds the queues missing from its list.
    ShardCounts(Vec<String>),
}

/// The maximum number of members sent for one invariant. The next pass checks the rest.
const MAX_MEMBERS: usize = 1000;

impl Invariant {
    /// Returns the arguments for a script: the kind, the number of arguments, the arguments.
    pub(super) fn script_args(&self) -> Vec<Vec<u8>> {
        let bytes = |text: &str| text.as_bytes().to_vec();
        let (kind, arguments): (_, Vec<Vec<u8>>) = match self {
            Invariant::KeyType { key, expected } => ("key_type", vec![key.clone(), bytes(expected)]),
            Invariant::TaskRecord { id, violation, document } => {
                let fixed = [id.as_bytes().to_vec(), bytes(violation)];
                ("task_record", fixed.into_iter().chain(document.clone()).collect())
            }
            Invariant::LastTurn(turn) => ("last_turn", vec![bytes(&turn.to_string())]),
            Invariant::LastSeq { queue, seq, ends } => {
                let numbers = std::iter::once(seq).chain(ends).map(|number| bytes(&number.to_string()));
                ("last_seq", std::iter::once(bytes(queue.as_str())).chain(numbers).collect())
            }
            Invariant::IndexEntry { member, index } => ("index_entry", vec![member.clone(), index.clone()]),
            Invariant::StaleEndFields(id) => ("stale_end_fields", vec![id.as_bytes().to_vec()]),
            Invariant::Retained(id) => ("retained", vec![id.as_bytes().to_vec()]),
            Invariant::Successor(id) => ("successor", vec![id.as_bytes().to_vec()]),
            Invariant::DedupeKey { queue, digest, ids } => {
                let ids = ids.iter().take(MAX_MEMBERS).map(|id| id.as_bytes().to_vec());
                ("dedupe", [bytes(queue.as_str()), digest.clone()].into_iter().chain(ids).collect())
            }
            Invariant::Idempotency(digest) => ("idempotency", vec![digest.clone()]),
            Invariant::SettingsIndex(name) => ("settings", vec![name.clone()]),
            Invariant::WheelEntry { queue, member } => ("wheel_entry", vec![bytes(queue.as_str()), member.clone()]),
            Invariant::QueueIndexes(name) => ("queue", vec![name.clone()]),
            Invariant::QueueCounts { queue, unlisted_slots } => {
                let slots = unlisted_slots.iter().take(MAX_MEMBERS).map(|slot| bytes(slot));
                ("queue_counts", std::iter::once(bytes(queue.as_str())).chain(slots).collect())
            }
            Invariant::ShardCounts(queues) => {
                ("shard_counts", queues.iter().take(MAX_MEMBERS).map(|queue| bytes(queue)).collect())
            }
        };
        let count = bytes(&arguments.len().to_string());
        [bytes(kind), count].into_iter().chain(arguments).collect()
    }

    /// Returns the maximum number of invariants of this kind in one call.
    pub(super) fn max_per_call(&self) -> usize {
        match self {
            Invariant::IndexEntry { .. }
            | Invariant::StaleEndFields(_)
            | Invariant::Retained(_)
            | Invariant::Successor(_)
            | Invariant::Idempotency(_)
            | Invariant::WheelEntry { .. } => 100,
            Invariant::QueueIndexes(_) | Invariant::SettingsIndex(_) => 20,
            Invariant::KeyType { .. } => 20,
            Invariant::TaskRecord { .. }
            | Invariant::LastTurn(_)
            | Invariant::LastSeq { .. }
            | Invariant::DedupeKey { .. }
            | Invariant::QueueCounts { .. }
            | Invariant::ShardCounts(_) => 1,
        }
    }

    /// Whether both are of the same kind, so that one call may check both.
    pub(super) fn is_same_kind(&self, other: &Invariant) -> bool {
        std::mem::discriminant(self) == std::mem::discriminant(other)
    }
}

/// Formats bytes that should be text.
fn escape(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).escape_debug().to_string()
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

impl fmt::Display for Invariant {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Invariant::KeyType { key, .. } => match key.strip_prefix(b"task:").and_then(TaskId::from_bytes) {
                Some(id) => write!(f, "task {id}"),
                None => write!(f, "key {}", escape(key)),
            },
            Invariant::TaskRecord { id, .. } => write!(f, "task {id}"),
            Invariant::LastTurn(_) => f.write_str("last turn of the shard"),
            Invariant::LastSeq { queue, .. } => write!(f, "last positions of queue {queue}"),
            Invariant::IndexEntry { member, index } => {
                let index = match index.strip_prefix(b"claim:") {
                    Some(digest) => format!("claim:{}", hex(digest)),
                    None => escape(index),
                };
                // In a keyed slot queue the id is at the end.
                match TaskId::from_bytes(member).or_else(|| TaskId::from_bytes(member.get(14..)?)) {
                    Some(id) => write!(f, "task {id} in {index}"),
                    None => write!(f, "{} in {index}", hex(member)),
                }
            }
            Invariant::StaleEndFields(id) | Invariant::Retained(id) | Invariant::Successor(id) => {
                write!(f, "task {id}")
            }
            Invariant::DedupeKey { queue, digest, .. } => {
                write!(f, "dedupe key {} of queue {queue}", hex(digest))
            }
            Invariant::Idempotency(digest) => write!(f, "Idempotency-Key record {}", hex(digest)),
            Invariant::WheelEntry { queue, member } => write!(f, "slot queue {} of queue {queue}", escape(member)),
            Invariant::SettingsIndex(name) => write!(f, "settings of queue {}", escape(name)),
            Invariant::QueueIndexes(name) => write!(f, "queue {}", escape(name)),
            Invariant::QueueCounts { queue, .. } => write!(f, "queue {queue}"),
            Invariant::ShardCounts(_) => f.write_str("counts of the shard"),
        }
    }
}

/// A violation of an invariant.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Violation {
    /// The violation. Empty if the invariant could not be checked.
    pub problem: String,
    /// The repair that is possible or was made, or why the invariant could not be checked.
    pub repair: String,
}

/// Parses the violations of each of `count` invariants.
pub(super) fn parse_violations(reply: Value, count: usize) -> Result<Vec<Vec<Violation>>> {
    parse_items(reply, count, |list| {
        list.map(|pair| {
            let mut pair = read_list(pair)?;
            Ok(Violation { problem: pair.text()?, repair: pair.text()? })
        })
        .collect()
    })
}
