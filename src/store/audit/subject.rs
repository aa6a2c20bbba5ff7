//! What an audit can suspect and a script can look at in one piece: the few keys that a statement is about.

use std::fmt;

use crate::domain::id::TaskId;
use crate::domain::queue::QueueName;

/// What a finding is about. In the order in which they are mended: what comes later is counted from what comes first.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum Subject {
    /// The shard's counters, which must not be behind what was given out.
    Counters {
        /// The highest place in a slot queue that was seen.
        seq: i64,
        /// The highest turn on a wheel that was seen.
        turn: i64,
    },
    /// A member of an index of tasks.
    Entry {
        /// The id, or what stands where one should.
        member: Vec<u8>,
        /// What follows the shard's base.
        index: Vec<u8>,
    },
    /// A task that may bear fields that only an ended one has.
    Marks(TaskId),
    /// A dedupe key.
    Dedupe {
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
    Settings(Vec<u8>),
    /// A slot queue and its entry on the wheel.
    Place {
        /// Whose wheel.
        queue: QueueName,
        /// `<priority>:<slot>`.
        member: Vec<u8>,
    },
    /// Where a queue stands among the queues, by its name.
    Queue(Vec<u8>),
    /// The counts of a queue.
    Counts {
        /// Whose.
        queue: QueueName,
        /// Slot queues that its wheel does not name.
        places: Vec<String>,
    },
    /// The counts of the shard; these queues are not in its list.
    Total(Vec<String>),
}

/// Members of one subject that a script is sent at most: those beyond are seen by the next look.
const MEMBERS: usize = 1000;

impl Subject {
    /// As the scripts take it: its kind, the number of arguments, the arguments.
    pub(in crate::store) fn arguments(&self) -> Vec<Vec<u8>> {
        let bytes = |text: &str| text.as_bytes().to_vec();
        let (kind, arguments): (_, Vec<Vec<u8>>) = match self {
            Subject::Counters { seq, turn } => ("counters", vec![bytes(&seq.to_string()), bytes(&turn.to_string())]),
            Subject::Entry { member, index } => ("entry", vec![member.clone(), index.clone()]),
            Subject::Marks(id) => ("marks", vec![id.as_bytes().to_vec()]),
            Subject::Dedupe { queue, digest, ids } => {
                let ids = ids.iter().take(MEMBERS).map(|id| id.as_bytes().to_vec());
                ("dedupe", [bytes(queue.as_str()), digest.clone()].into_iter().chain(ids).collect())
            }
            Subject::Idempotency(digest) => ("idem", vec![digest.clone()]),
            Subject::Settings(name) => ("settings", vec![name.clone()]),
            Subject::Place { queue, member } => ("place", vec![bytes(queue.as_str()), member.clone()]),
            Subject::Queue(name) => ("queue", vec![name.clone()]),
            Subject::Counts { queue, places } => {
                let places = places.iter().take(MEMBERS).map(|place| bytes(place));
                ("counts", std::iter::once(bytes(queue.as_str())).chain(places).collect())
            }
            Subject::Total(queues) => ("total", queues.iter().take(MEMBERS).map(|queue| bytes(queue)).collect()),
        };
        let count = bytes(&arguments.len().to_string());
        [bytes(kind), count].into_iter().chain(arguments).collect()
    }

    /// How many of its kind one call looks at.
    pub(super) fn per_call(&self) -> usize {
        match self {
            Subject::Entry { .. } | Subject::Marks(_) | Subject::Idempotency(_) | Subject::Place { .. } => 100,
            Subject::Queue(_) | Subject::Settings(_) => 20,
            Subject::Counters { .. } | Subject::Dedupe { .. } | Subject::Counts { .. } | Subject::Total(_) => 1,
        }
    }

    /// Whether both are of one kind, and so may stand in one call.
    pub(super) fn is_like(&self, other: &Subject) -> bool {
        std::mem::discriminant(self) == std::mem::discriminant(other)
    }
}

/// What should be text, for people.
fn shown(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).escape_debug().to_string()
}

/// Bytes that are no text, in hexadecimal digits.
fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

impl fmt::Display for Subject {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Subject::Counters { .. } => f.write_str("the shard's counters"),
            Subject::Entry { member, index } => {
                let index = match index.strip_prefix(b"claim:") {
                    Some(digest) => format!("claim:{}", hex(digest)),
                    None => shown(index),
                };
                match TaskId::from_bytes(member) {
                    Some(id) => write!(f, "task {id} in {index}"),
                    None => write!(f, "{} in {index}", hex(member)),
                }
            }
            Subject::Marks(id) => write!(f, "task {id}"),
            Subject::Dedupe { queue, digest, .. } => {
                write!(f, "a dedupe key of queue {queue} ({})", hex(digest))
            }
            Subject::Idempotency(digest) => write!(f, "an Idempotency-Key's record ({})", hex(digest)),
            Subject::Place { queue, member } => write!(f, "slot queue {} of queue {queue}", shown(member)),
            Subject::Settings(name) => write!(f, "settings of queue {}", shown(name)),
            Subject::Queue(name) => write!(f, "queue {}", shown(name)),
            Subject::Counts { queue, .. } => write!(f, "queue {queue}"),
            Subject::Total(_) => f.write_str("the shard"),
        }
    }
}
