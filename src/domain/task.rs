//! Tasks, as they are submitted, handed out and shown.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

use super::digest::Digest;
use super::id::TaskId;
use super::queue::QueueName;
use super::retry::Backoff;
use super::slot::Slot;
use super::state::State;
use super::time::TimestampMs;
use super::token::Token;

/// JSON of a user's, byte for byte as it was sent.
pub type RawJson = Box<RawValue>;

/// What a user hangs on a task beside its payload; Redis' scripts never look into it.
#[derive(Clone, Default, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Attributes {
    /// The routing key as given.
    #[serde(rename = "k", default, skip_serializing_if = "Option::is_none")]
    pub key: Option<String>,
    /// For lists to filter by.
    #[serde(rename = "t", default, skip_serializing_if = "Vec::is_empty")]
    pub tags: Vec<String>,
    /// Handed on to the worker, e.g. `traceparent`.
    #[serde(rename = "h", default, skip_serializing_if = "BTreeMap::is_empty")]
    pub headers: BTreeMap<String, String>,
}

/// When a new task can first be claimed.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum StartTime {
    /// After this many ms; 0: at once.
    After(i64),
    /// At this time.
    At(TimestampMs),
}

/// What a submit does when its dedupe key is held by a task that has not ended.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum DedupeMode {
    /// Answers with that task.
    Keep,
    /// Gives that task, if it waits, the new content.
    Replace,
    /// As `Replace`, and puts its delay back to the start.
    Debounce,
}

/// A dedupe key, with what to do where it is held.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Dedupe {
    /// Of queue, key and dedupe key.
    pub digest: Digest,
    /// What to do.
    pub mode: DedupeMode,
    /// For how many ms at most the key is held; `None`: until the task ends.
    pub window_ms: Option<i64>,
}

/// A task to be.
#[derive(Clone, Debug)]
pub struct NewTask {
    /// Made before the first attempt to store it, so that storing it twice is storing it once.
    pub id: TaskId,
    /// Where it queues.
    pub queue: QueueName,
    /// Where it queues within the queue. The id names it too, but a pinned queue's ids name another.
    pub slot: Slot,
    /// 0..9, 9 first.
    pub priority: u8,
    /// For the worker.
    pub payload: RawJson,
    /// Key, tags, headers.
    pub attributes: Attributes,
    /// When it can run.
    pub start: StartTime,
    /// From submit, ms.
    pub expires_in_ms: Option<i64>,
    /// Executions that may fail.
    pub max_attempts: u32,
    /// `None`: the default.
    pub backoff: Option<Backoff>,
    /// The longest run of one lease in ms; 0: without end.
    pub max_run_ms: i64,
    /// How long it is kept once ended, ms; `None`: the default of its end.
    pub retain_ms: Option<i64>,
    /// Its dedupe key.
    pub dedupe: Option<Dedupe>,
}

impl NewTask {
    /// The task right after its submit.
    pub fn into_task(
        self,
        state: State,
        created_at: TimestampMs,
        run_at: Option<TimestampMs>,
        expires_at: Option<TimestampMs>,
    ) -> Task {
        Task {
            id: self.id,
            queue: self.queue,
            slot: self.slot,
            state,
            priority: self.priority,
            payload: self.payload,
            attributes: self.attributes,
            attempts: 0,
            max_attempts: self.max_attempts,
            acquired: 0,
            progress: None,
            result: None,
            errors: Vec::new(),
            created_at,
            run_at,
            expires_at,
            finished_at: None,
            worker: None,
            lease_until: None,
            cancel_requested: false,
        }
    }
}

/// An execution that went wrong.
#[derive(Clone, Debug)]
pub struct TaskError {
    /// When its lease ended.
    pub at: TimestampMs,
    /// Which execution, from 1.
    pub attempt: u32,
    /// What went wrong.
    pub report: ErrorReport,
}

/// What is known of why an execution went wrong.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct ErrorReport {
    /// Who ran it.
    #[serde(rename = "w")]
    pub worker: String,
    /// The kind, in the worker's words; `lease_expired` where the worker fell silent.
    #[serde(rename = "t")]
    pub kind: String,
    /// For people.
    #[serde(rename = "m")]
    pub message: String,
    /// For programs.
    #[serde(rename = "d", default, skip_serializing_if = "Option::is_none")]
    pub details: Option<RawJson>,
}

/// A task as it stands.
#[derive(Clone, Debug)]
pub struct Task {
    /// Its id.
    pub id: TaskId,
    /// Where it queues.
    pub queue: QueueName,
    /// Where it queues within the queue.
    pub slot: Slot,
    /// Where it stands.
    pub state: State,
    /// 0..9, 9 first.
    pub priority: u8,
    /// For the worker.
    pub payload: RawJson,
    /// Key, tags, headers.
    pub attributes: Attributes,
    /// Executions that failed or ran out.
    pub attempts: u32,
    /// Executions that may.
    pub max_attempts: u32,
    /// How often it was handed out.
    pub acquired: u32,
    /// What the worker last said of how far it is.
    pub progress: Option<RawJson>,
    /// What it came to.
    pub result: Option<RawJson>,
    /// The last ones, oldest first.
    pub errors: Vec<TaskError>,
    /// When it was submitted.
    pub created_at: TimestampMs,
    /// When it can or could first run, where that is not at once.
    pub run_at: Option<TimestampMs>,
    /// When it expires if it has not started.
    pub expires_at: Option<TimestampMs>,
    /// When it ended.
    pub finished_at: Option<TimestampMs>,
    /// Who holds it, or held it last.
    pub worker: Option<String>,
    /// Until when it is held.
    pub lease_until: Option<TimestampMs>,
    /// Whether a client wants it called off while it is held.
    pub cancel_requested: bool,
}

/// A task in a worker's hands.
#[derive(Clone, Debug)]
pub struct ClaimedTask {
    /// Its id.
    pub id: TaskId,
    /// Where it queued.
    pub queue: QueueName,
    /// Where it queued within the queue.
    pub slot: Slot,
    /// 0..9, 9 first.
    pub priority: u8,
    /// For the worker.
    pub payload: RawJson,
    /// Key, tags, headers.
    pub attributes: Attributes,
    /// Which execution this is, from 1.
    pub attempt: u32,
    /// Executions that may fail.
    pub max_attempts: u32,
    /// What an earlier execution last said of how far it was.
    pub progress: Option<RawJson>,
    /// When it was submitted.
    pub created_at: TimestampMs,
    /// When it would have expired.
    pub expires_at: Option<TimestampMs>,
    /// Proof of the lease.
    pub lease: Token,
    /// Until when the lease holds.
    pub lease_until: TimestampMs,
}
