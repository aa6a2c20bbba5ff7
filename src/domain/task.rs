//! Tasks as submitted, as claimed, and as shown.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

use super::digest::{Digest, KeyDigest};
use super::id::TaskId;
use super::queue::QueueName;
use super::retry::Backoff;
use super::slot::Slot;
use super::state::State;
use super::time::TimestampMs;
use super::token::Token;

/// User-supplied JSON, byte for byte as received.
pub type RawJson = Box<RawValue>;

/// User-supplied attributes of a task beside its payload. Scripts do not read them.
#[derive(Clone, Default, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Attributes {
    /// Routing key.
    #[serde(rename = "k", default, skip_serializing_if = "Option::is_none")]
    pub key: Option<String>,
    /// Tags, for filtering lists.
    #[serde(rename = "t", default, skip_serializing_if = "Vec::is_empty")]
    pub tags: Vec<String>,
    /// Headers for the worker, e.g. `traceparent`.
    #[serde(rename = "h", default, skip_serializing_if = "BTreeMap::is_empty")]
    pub headers: BTreeMap<String, String>,
}

/// Time from which a new task can be claimed.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum StartTime {
    /// This many ms after submit; 0: immediately.
    After(i64),
    /// At this time.
    At(TimestampMs),
}

/// Effect of a submit whose dedupe key is held by a task that has not ended.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum DedupeMode {
    /// Returns the existing task.
    Keep,
    /// Replaces the content of the existing task. If that is leased: as `After`, and it gets no further attempt.
    Replace,
    /// As `Replace`, and restarts its delay.
    Debounce,
    /// Stores a task that runs once the existing one has ended, or replaces the content of such a task.
    After,
}

/// A dedupe key and its mode.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Dedupe {
    /// Digest of queue, key and dedupe key.
    pub digest: Digest,
    /// Effect if the key is held.
    pub mode: DedupeMode,
    /// Maximum time that the key is held, ms; `None`: until the task ends.
    pub window_ms: Option<i64>,
}

/// A task to submit.
#[derive(Clone, Debug)]
pub struct NewTask {
    /// Chosen before the first attempt to store the task, so that storing is idempotent.
    pub id: TaskId,
    /// Whether an earlier submit may have stored a task with this id.
    pub may_be_stored: bool,
    /// Queue.
    pub queue: QueueName,
    /// Slot within the queue. The id encodes it too, but the ids of a pinned queue encode another slot.
    pub slot: Slot,
    /// Digest of its routing key, which is its key, or without one its dedupe key; `None` with neither.
    pub key_digest: Option<KeyDigest>,
    /// Priority, 0 to 9; 9 is served first.
    pub priority: u8,
    /// Payload.
    pub payload: RawJson,
    /// Key, tags and headers.
    pub attributes: Attributes,
    /// Time from which it can be claimed.
    pub start: StartTime,
    /// Time from submit to expiry, ms.
    pub expires_in_ms: Option<i64>,
    /// Maximum number of failed attempts.
    pub max_attempts: u32,
    /// Number of deliveries after which a release by the worker ends the task; 0: unlimited.
    pub max_acquired: i64,
    /// Retry policy; `None`: the default.
    pub backoff: Option<Backoff>,
    /// Maximum duration of one lease, ms; 0: unlimited.
    pub max_run_ms: i64,
    /// Retention after the end, ms; `None`: the default of its final state.
    pub retain_ms: Option<i64>,
    /// Dedupe key.
    pub dedupe: Option<Dedupe>,
}

impl NewTask {
    /// Returns the task as stored directly after its submit.
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
            max_acquired: self.max_acquired,
            progress: None,
            result: None,
            result_dropped: false,
            errors: Vec::new(),
            created_at,
            run_at,
            after: None,
            expires_at,
            finished_at: None,
            worker: None,
            lease_until: None,
            cancel_requested: false,
        }
    }
}

/// A failed attempt.
#[derive(Clone, Debug)]
pub struct TaskError {
    /// End of its lease.
    pub at: TimestampMs,
    /// Attempt number, from 1.
    pub attempt: u32,
    /// The error.
    pub report: ErrorReport,
}

/// The error of a failed attempt.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct ErrorReport {
    /// Name of the worker.
    #[serde(rename = "w")]
    pub worker: String,
    /// Type of the error, chosen by the worker; `lease_expired` if the lease expired, `max_acquired` if the worker released
    /// the task after its last delivery.
    #[serde(rename = "t")]
    pub kind: String,
    /// Message, for people.
    #[serde(rename = "m")]
    pub message: String,
    /// Details, for programs.
    #[serde(rename = "d", default, skip_serializing_if = "Option::is_none")]
    pub details: Option<RawJson>,
}

/// A stored task.
#[derive(Clone, Debug)]
pub struct Task {
    /// Task id.
    pub id: TaskId,
    /// Queue.
    pub queue: QueueName,
    /// Slot within the queue.
    pub slot: Slot,
    /// State.
    pub state: State,
    /// Priority, 0 to 9; 9 is served first.
    pub priority: u8,
    /// Payload.
    pub payload: RawJson,
    /// Key, tags and headers.
    pub attributes: Attributes,
    /// Number of failed attempts, including expired leases.
    pub attempts: u32,
    /// Maximum number of failed attempts.
    pub max_attempts: u32,
    /// Number of deliveries.
    pub acquired: u32,
    /// Number of deliveries after which a release by the worker ends the task; 0: unlimited.
    pub max_acquired: i64,
    /// Last progress reported by a worker.
    pub progress: Option<RawJson>,
    /// Result.
    pub result: Option<RawJson>,
    /// Whether the result was dropped because Redis was full.
    pub result_dropped: bool,
    /// Last errors, oldest first.
    pub errors: Vec<TaskError>,
    /// Time of submit.
    pub created_at: TimestampMs,
    /// Time from which it can be claimed; `None`: immediately.
    pub run_at: Option<TimestampMs>,
    /// The task whose end it waits for.
    pub after: Option<TaskId>,
    /// Deadline for its start.
    pub expires_at: Option<TimestampMs>,
    /// Time of its end.
    pub finished_at: Option<TimestampMs>,
    /// Name of the worker that holds or last held it.
    pub worker: Option<String>,
    /// End of the current lease.
    pub lease_until: Option<TimestampMs>,
    /// Whether a client has requested its cancellation while leased.
    pub cancel_requested: bool,
}

impl Task {
    /// Returns the task as it is at `now`: one that waits past its time of expiry is expired, whether or not upkeep has
    /// ended it.
    pub fn at(self, now: TimestampMs) -> Task {
        match self.expires_at.filter(|expires_at| self.state.is_waiting() && *expires_at <= now) {
            Some(expires_at) => Task { state: State::Expired, finished_at: Some(expires_at), after: None, ..self },
            None => self,
        }
    }

    /// Whether its state depends on the clock.
    pub fn may_expire(&self) -> bool {
        self.state.is_waiting() && self.expires_at.is_some()
    }
}

/// A task delivered to a worker.
#[derive(Clone, Debug)]
pub struct ClaimedTask {
    /// Task id.
    pub id: TaskId,
    /// Queue.
    pub queue: QueueName,
    /// Slot within the queue.
    pub slot: Slot,
    /// Priority, 0 to 9; 9 is served first.
    pub priority: u8,
    /// Payload.
    pub payload: RawJson,
    /// Key, tags and headers.
    pub attributes: Attributes,
    /// Attempt number, from 1.
    pub attempt: u32,
    /// Maximum number of failed attempts.
    pub max_attempts: u32,
    /// Last progress reported by an earlier attempt.
    pub progress: Option<RawJson>,
    /// Time of submit.
    pub created_at: TimestampMs,
    /// Deadline for its start.
    pub expires_at: Option<TimestampMs>,
    /// Lease token.
    pub lease: Token,
    /// End of the lease.
    pub lease_until: TimestampMs,
}
