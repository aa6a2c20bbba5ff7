//! The JSON forms of tasks and queues. Each is built by destructuring, so a new field does not compile until this file
//! decides whether it is public. All settings of a queue are.

use std::collections::BTreeMap;

use serde::Serialize;
use serde_json::value::RawValue;

use super::as_text::AsText;
use crate::domain::id::TaskId;
use crate::domain::queue::QueueSettings;
use crate::domain::task::{Attributes, ClaimedTask, ErrorReport, Task, TaskError};
use crate::domain::time::TimestampMs;
use crate::domain::token::Token;
use crate::store::views::queues::{Counts, Queue};

/// A task.
#[derive(Debug, Serialize)]
pub(in crate::api) struct TaskJson<'a> {
    id: AsText<TaskId>,
    queue: &'a str,
    key: Option<&'a str>,
    slot: u16,
    /// Null only in the response to a repeated submit whose task has been deleted.
    pub(in crate::api) state: Option<&'a str>,
    priority: u8,
    payload: &'a RawValue,
    attempts: u32,
    max_attempts: u32,
    acquired: u32,
    max_acquired: i64,
    progress: Option<&'a RawValue>,
    result: Option<&'a RawValue>,
    result_dropped: bool,
    tags: &'a [String],
    headers: &'a BTreeMap<String, String>,
    group: Option<&'a str>,
    errors: Vec<TaskErrorJson<'a>>,
    created_at: AsText<TimestampMs>,
    run_at: Option<AsText<TimestampMs>>,
    after: Option<AsText<TaskId>>,
    expires_at: Option<AsText<TimestampMs>>,
    finished_at: Option<AsText<TimestampMs>>,
    worker: Option<&'a str>,
    lease_until: Option<AsText<TimestampMs>>,
    cancel_requested: bool,
}

#[derive(Debug, Serialize)]
struct TaskErrorJson<'a> {
    at: AsText<TimestampMs>,
    attempt: u32,
    worker: &'a str,
    r#type: &'a str,
    message: &'a str,
    details: Option<&'a RawValue>,
}

/// The response to a submit: a new task, or the task that holds its dedupe key.
#[derive(Debug, Serialize)]
pub(in crate::api) struct SubmittedTaskJson<'a> {
    #[serde(flatten)]
    pub(in crate::api) task: TaskJson<'a>,
    pub(in crate::api) deduplicated: bool,
}

/// A claimed task.
#[derive(Debug, Serialize)]
pub(in crate::api) struct ClaimedTaskJson<'a> {
    id: AsText<TaskId>,
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
    created_at: AsText<TimestampMs>,
    expires_at: Option<AsText<TimestampMs>>,
    lease: AsText<Token>,
    lease_until: AsText<TimestampMs>,
}

/// A queue with its counts.
#[derive(Debug, Serialize)]
pub(in crate::api) struct QueueJson<'a> {
    queue: &'a str,
    #[serde(flatten)]
    settings: &'a QueueSettings,
    counts: CountsJson,
    oldest_ready_age_ms: Option<i64>,
    unreadable: bool,
}

#[derive(Debug, Serialize)]
struct CountsJson {
    submitted: i64,
    scheduled: i64,
    ready: i64,
    leased: i64,
    completed: i64,
    dead: i64,
    cancelled: i64,
    expired: i64,
    deleted: i64,
}

impl<'a> From<&'a Task> for TaskJson<'a> {
    fn from(task: &'a Task) -> Self {
        let Task {
            id,
            queue,
            slot,
            state,
            priority,
            payload,
            attributes: Attributes { key, tags, headers },
            attempts,
            max_attempts,
            acquired,
            max_acquired,
            progress,
            result,
            result_dropped,
            errors,
            created_at,
            run_at,
            after,
            expires_at,
            finished_at,
            worker,
            lease_until,
            cancel_requested,
        } = task;
        TaskJson {
            id: AsText(*id),
            queue: queue.as_str(),
            key: key.as_deref(),
            slot: slot.number(),
            state: Some(state.as_str()),
            priority: *priority,
            payload,
            attempts: *attempts,
            max_attempts: *max_attempts,
            acquired: *acquired,
            max_acquired: *max_acquired,
            progress: progress.as_deref(),
            result: result.as_deref(),
            result_dropped: *result_dropped,
            tags,
            headers,
            group: None,
            errors: errors.iter().map(TaskErrorJson::from).collect(),
            created_at: AsText(*created_at),
            run_at: run_at.map(AsText),
            after: after.map(AsText),
            expires_at: expires_at.map(AsText),
            finished_at: finished_at.map(AsText),
            worker: worker.as_deref(),
            lease_until: lease_until.map(AsText),
            cancel_requested: *cancel_requested,
        }
    }
}

impl<'a> From<&'a TaskError> for TaskErrorJson<'a> {
    fn from(error: &'a TaskError) -> Self {
        let TaskError { at, attempt, report: ErrorReport { worker, kind, message, details } } = error;
        TaskErrorJson { at: AsText(*at), attempt: *attempt, worker, r#type: kind, message, details: details.as_deref() }
    }
}

impl<'a> From<&'a ClaimedTask> for ClaimedTaskJson<'a> {
    fn from(task: &'a ClaimedTask) -> Self {
        let ClaimedTask {
            id,
            queue,
            slot,
            priority,
            payload,
            attributes: Attributes { key, tags, headers },
            attempt,
            max_attempts,
            progress,
            created_at,
            expires_at,
            lease,
            lease_until,
        } = task;
        ClaimedTaskJson {
            id: AsText(*id),
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
            created_at: AsText(*created_at),
            expires_at: expires_at.map(AsText),
            lease: AsText(*lease),
            lease_until: AsText(*lease_until),
        }
    }
}

impl<'a> From<&'a Queue> for QueueJson<'a> {
    fn from(queue: &'a Queue) -> Self {
        let Queue { name, settings, counts, oldest_ready_age_ms, is_unreadable } = queue;
        let Counts { submitted, scheduled, ready, leased, completed, dead, cancelled, expired, deleted } = *counts;
        QueueJson {
            queue: name.as_str(),
            settings,
            counts: CountsJson { submitted, scheduled, ready, leased, completed, dead, cancelled, expired, deleted },
            oldest_ready_age_ms: *oldest_ready_age_ms,
            unreadable: *is_unreadable,
        }
    }
}
