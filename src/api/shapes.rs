//! Tasks and queues as JSON shows them. Each is built by destructuring: a new field does not compile until it is
//! decided here whether it is shown.

use std::collections::BTreeMap;

use serde::Serialize;
use serde_json::value::RawValue;

use super::reply::Shown;
use crate::domain::id::TaskId;
use crate::domain::task::{Claimed, ErrorReport, Labels, Task, TaskError};
use crate::domain::time::Millis;
use crate::domain::token::Token;
use crate::store::views::queues::{Counts, Queue};

/// A task.
#[derive(Debug, Serialize)]
pub(super) struct TaskShape<'a> {
    id: Shown<TaskId>,
    queue: &'a str,
    key: Option<&'a str>,
    slot: u16,
    /// Null only where the task of a repeated submit is long gone.
    pub(super) state: Option<&'a str>,
    priority: u8,
    payload: &'a RawValue,
    attempts: u32,
    max_attempts: u32,
    acquired: u32,
    progress: Option<&'a RawValue>,
    result: Option<&'a RawValue>,
    tags: &'a [String],
    headers: &'a BTreeMap<String, String>,
    group: Option<&'a str>,
    errors: Vec<ErrorShape<'a>>,
    created_at: Shown<Millis>,
    run_at: Option<Shown<Millis>>,
    expires_at: Option<Shown<Millis>>,
    finished_at: Option<Shown<Millis>>,
    worker: Option<&'a str>,
    lease_until: Option<Shown<Millis>>,
    cancel_requested: bool,
}

#[derive(Debug, Serialize)]
struct ErrorShape<'a> {
    at: Shown<Millis>,
    attempt: u32,
    worker: &'a str,
    r#type: &'a str,
    message: &'a str,
    details: Option<&'a RawValue>,
}

/// A task just submitted, or found.
#[derive(Debug, Serialize)]
pub(super) struct SubmittedShape<'a> {
    #[serde(flatten)]
    pub(super) task: TaskShape<'a>,
    pub(super) deduplicated: bool,
}

/// A task in a worker's hands.
#[derive(Debug, Serialize)]
pub(super) struct ClaimedShape<'a> {
    id: Shown<TaskId>,
    queue: &'a str,
    key: Option<&'a str>,
    slot: u16,
    priority: u8,
    payload: &'a RawValue,
    attempt: u32,
    max_attempts: u32,
    progress: Option<&'a RawValue>,
    tags: &'a [String],
    headers: &'a BTreeMap<String, String>,
    group: Option<&'a str>,
    created_at: Shown<Millis>,
    expires_at: Option<Shown<Millis>>,
    lease: Shown<Token>,
    lease_until: Shown<Millis>,
}

/// A queue.
#[derive(Debug, Serialize)]
pub(super) struct QueueShape<'a> {
    queue: &'a str,
    paused: bool,
    counts: CountsShape,
    oldest_ready_age_ms: Option<i64>,
}

#[derive(Debug, Serialize)]
struct CountsShape {
    submitted: i64,
    scheduled: i64,
    ready: i64,
    leased: i64,
    completed: i64,
    dead: i64,
    cancelled: i64,
    expired: i64,
    removed: i64,
}

impl<'a> From<&'a Task> for TaskShape<'a> {
    fn from(task: &'a Task) -> Self {
        let Task {
            id,
            queue,
            slot,
            state,
            priority,
            payload,
            labels: Labels { key, tags, headers },
            attempts,
            max_attempts,
            acquired,
            progress,
            result,
            errors,
            created_at,
            run_at,
            expires_at,
            finished_at,
            worker,
            lease_until,
            cancel_requested,
        } = task;
        TaskShape {
            id: Shown(*id),
            queue: queue.as_str(),
            key: key.as_deref(),
            slot: slot.number(),
            state: Some(state.as_str()),
            priority: *priority,
            payload,
            attempts: *attempts,
            max_attempts: *max_attempts,
            acquired: *acquired,
            progress: progress.as_deref(),
            result: result.as_deref(),
            tags,
            headers,
            group: None,
            errors: errors.iter().map(ErrorShape::from).collect(),
            created_at: Shown(*created_at),
            run_at: run_at.map(Shown),
            expires_at: expires_at.map(Shown),
            finished_at: finished_at.map(Shown),
            worker: worker.as_deref(),
            lease_until: lease_until.map(Shown),
            cancel_requested: *cancel_requested,
        }
    }
}

impl<'a> From<&'a TaskError> for ErrorShape<'a> {
    fn from(error: &'a TaskError) -> Self {
        let TaskError { at, attempt, report: ErrorReport { worker, kind, message, details } } = error;
        ErrorShape { at: Shown(*at), attempt: *attempt, worker, r#type: kind, message, details: details.as_deref() }
    }
}

impl<'a> From<&'a Claimed> for ClaimedShape<'a> {
    fn from(task: &'a Claimed) -> Self {
        let Claimed {
            id,
            queue,
            slot,
            priority,
            payload,
            labels: Labels { key, tags, headers },
            attempt,
            max_attempts,
            progress,
            created_at,
            expires_at,
            lease,
            lease_until,
        } = task;
        ClaimedShape {
            id: Shown(*id),
            queue: queue.as_str(),
            key: key.as_deref(),
            slot: slot.number(),
            priority: *priority,
            payload,
            attempt: *attempt,
            max_attempts: *max_attempts,
            progress: progress.as_deref(),
            tags,
            headers,
            group: None,
            created_at: Shown(*created_at),
            expires_at: expires_at.map(Shown),
            lease: Shown(*lease),
            lease_until: Shown(*lease_until),
        }
    }
}

impl<'a> From<&'a Queue> for QueueShape<'a> {
    fn from(queue: &'a Queue) -> Self {
        let Queue { name, settings, counts, oldest_ready_age_ms } = queue;
        let Counts { submitted, scheduled, ready, leased, completed, dead, cancelled, expired, removed } = *counts;
        QueueShape {
            queue: name.as_str(),
            paused: settings.paused,
            counts: CountsShape { submitted, scheduled, ready, leased, completed, dead, cancelled, expired, removed },
            oldest_ready_age_ms: *oldest_ready_age_ms,
        }
    }
}
