//! What an audit can suspect and a script can look at in one piece: the few keys that a statement is about.

use std::fmt;

use crate::domain::id::TaskId;
use crate::domain::queue::QueueName;

/// What a finding is about. In the order in which they are mended: what comes later is counted from what comes first.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum Invariant {
    /// The shard's counters, which must not be behind what was given out.
    Counters {
        /// The highest place in a slot queue that was seen.
        seq: i64,
        /// The highest turn on a wheel that was seen.
        turn: i64,
    },
    /// A member of an index of tasks.
    IndexEntry {
        /// The id, or what stands where one should.
        member: Vec<u8>,
        /// What follows the shard's base.
        index: Vec<u8>,
    },
    /// A task that may bear fields that only an ended one has.
    StaleEndFields(TaskId),
    /// A dedupe key.
    DedupeKey {
        /// Of the tasks that may hold it.
        queue: QueueName,
        /// Of the key.
        digest: Vec<u8>,
        /// Tasks that live and name it.
        ids: Vec<TaskId>,
    },
    /// The record of an Idempotency-Key, by its digest.
    Idempotency(Vec<u8>),
    /// Whether a queue's settings are listed where upkeep looks for them, by the queue's name.
    SettingsIndex(Vec<u8>),
    /// A slot queue and its entry on the wheel.
    WheelEntry {
        /// Whose wheel.
        queue: QueueName,
        /// `<priority>:<slot>`.
        member: Vec<u8>,
    },
    /// Where a queue stands among the queues, by its name.
    QueueIndexes(Vec<u8>),
    /// The counts of a queue.
    QueueCounts {
        /// Whose.
        queue: QueueName,
        /// Slot queues that its wheel does not name.
        unlisted_slots: Vec<String>,
    },
    /// The counts of the shard; these queues are not in its list.
    ShardCounts(Vec<String>),
}

/// Members of one subject that a script is sent at most: those beyond are seen by the next look.
const MAX_MEMBERS: usize = 1000;

impl Invariant {
    /// As the scripts take it: its kind, the number of arguments, the arguments.
    pub(in crate::store) fn script_args(&self) -> Vec<Vec<u8>> {
        let bytes = |text: &str| text.as_bytes().to_vec();
        let (kind, arguments): (_, Vec<Vec<u8>>) = match self {
            Invariant::Counters { seq, turn } => ("counters", vec![bytes(&seq.to_string()), bytes(&turn.to_string())]),
            Invariant::IndexEntry { member, index } => ("index_entry", vec![member.clone(), index.clone()]),
            Invariant::StaleEndFields(id) => ("stale_end_fields", vec![id.as_bytes().to_vec()]),
            Invariant::DedupeKey { queue, digest, ids } => {
                let ids = ids.iter().take(MAX_MEMBERS).map(|id| id.as_bytes().to_vec());
                ("dedupe", [bytes(queue.as_str()), digest.clone()].into_iter().chain(ids).collect())
            }
            Invariant::Idempotency(digest) => ("idempotency", vec![digest.clone()]),
            Invariant::SettingsIndex(name) => ("settings", vec![name.clone()]),
            Invariant::WheelEntry { queue, member } => ("wheel_entry", vec![bytes(queue.as_str()), member.clone()]),
            Invariant::QueueIndexes(name) => ("queue", vec![name.clone()]),
            Invariant::QueueCounts { queue, unlisted_slots: places } => {
                let places = places.iter().take(MAX_MEMBERS).map(|place| bytes(place));
                ("queue_counts", std::iter::once(bytes(queue.as_str())).chain(places).collect())
            }
            Invariant::ShardCounts(queues) => {
                ("shard_counts", queues.iter().take(MAX_MEMBERS).map(|queue| bytes(queue)).collect())
            }
        };
        let count = bytes(&arguments.len().to_string());
        [bytes(kind), count].into_iter().chain(arguments).collect()
    }

    /// How many of its kind one call looks at.
    pub(super) fn max_per_call(&self) -> usize {
        match self {
            Invariant::IndexEntry { .. }
            | Invariant::StaleEndFields(_)
            | Invariant::Idempotency(_)
            | Invariant::WheelEntry { .. } => 100,
            Invariant::QueueIndexes(_) | Invariant::SettingsIndex(_) => 20,
            Invariant::Counters { .. }
            | Invariant::DedupeKey { .. }
            | Invariant::QueueCounts { .. }
            | Invariant::ShardCounts(_) => 1,
        }
    }

    /// Whether both are of one kind, and so may stand in one call.
    pub(super) fn is_same_kind(&self, other: &Invariant) -> bool {
        std::mem::discriminant(self) == std::mem::discriminant(other)
    }
}

/// What should be text, for people.
fn escape(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).escape_debug().to_string()
}

/// Bytes that are no text, in hexadecimal digits.
fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

impl fmt::Display for Invariant {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Invariant::Counters { .. } => f.write_str("the shard's counters"),
            Invariant::IndexEntry { member, index } => {
                let index = match index.strip_prefix(b"claim:") {
                    Some(digest) => format!("claim:{}", hex(digest)),
                    None => escape(index),
                };
                match TaskId::from_bytes(member) {
                    Some(id) => write!(f, "task {id} in {index}"),
                    None => write!(f, "{} in {index}", hex(member)),
                }
            }
            Invariant::StaleEndFields(id) => write!(f, "task {id}"),
            Invariant::DedupeKey { queue, digest, .. } => {
                write!(f, "a dedupe key of queue {queue} ({})", hex(digest))
            }
            Invariant::Idempotency(digest) => write!(f, "an Idempotency-Key's record ({})", hex(digest)),
            Invariant::WheelEntry { queue, member } => write!(f, "slot queue {} of queue {queue}", escape(member)),
            Invariant::SettingsIndex(name) => write!(f, "settings of queue {}", escape(name)),
            Invariant::QueueIndexes(name) => write!(f, "queue {}", escape(name)),
            Invariant::QueueCounts { queue, .. } => write!(f, "queue {queue}"),
            Invariant::ShardCounts(_) => f.write_str("the shard"),
        }
    }
}
