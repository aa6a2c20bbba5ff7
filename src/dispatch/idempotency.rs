//! Submits under an Idempotency-Key: a task is stored once, however often its submit is sent.
//!
//! A submit opens the key's record, which names the task's id, then stores the task under that id, then completes the
//! record with the outcome. If the submit is refused, the record is marked: another body may then use the key. A retry
//! finds the record. If it is complete, the retry returns the same outcome. If it is
//! open, the retry stores the task under the same id, and storing it twice has no effect.

use std::collections::HashMap;
use std::time::Duration;

use tokio::time::Instant;

use super::batched_ops::BatchedOps;
use super::claim::ClaimEngine;
use super::task_spans::TaskTracer;
use crate::domain::digest::Digest;
use crate::domain::id::TaskId;
use crate::domain::queue::QueueName;
use crate::domain::state::State;
use crate::domain::task::{NewTask, Task};
use crate::store::ops::idempotency::{IdempotencyOutcome, IdempotencyRecord};
use crate::store::ops::submit::Submitted;
use crate::store::{self, Error, Store, views};

/// An Idempotency-Key and the request body that came with it, as digests.
#[derive(Clone, Copy, Debug)]
pub struct IdempotencyKey {
    key: Digest,
    body: Digest,
}

impl IdempotencyKey {
    /// Digests of a key and of the canonical form of its body. All clients of a queue share one space of keys: requests
    /// are not authenticated.
    pub fn new(key: &str, queue: &QueueName, canonical_body: &str) -> Self {
        IdempotencyKey {
            key: Digest::of(&[queue.as_str().as_bytes(), key.as_bytes()]),
            body: Digest::of(&[canonical_body.as_bytes()]),
        }
    }
}

/// A task to submit, and the Idempotency-Key under which it is stored once.
pub type Submission = (NewTask, Option<IdempotencyKey>);

/// The outcome of a submit.
#[derive(Debug)]
pub struct SubmitOutcome {
    /// The task as it is now.
    pub task: Task,
    /// Whether the submit, or its first sending, created the task. Otherwise the task held the dedupe key before.
    pub is_created: bool,
    /// Whether the task has been deleted since, or could not be read. `task` then has only the data of the submit.
    pub is_deleted: bool,
}

/// Why a submit has no outcome.
#[derive(Clone, Debug)]
pub enum SubmitError {
    /// The Idempotency-Key came with another body before.
    BodyMismatch,
    /// `run_at` is too far from Redis' clock.
    RunAtTooFar,
    /// The task would expire before `run_at`.
    RunAtPastExpiry,
    /// The store returned an error.
    Store(Error),
}

impl SubmitError {
    /// Whether the submit certainly stored no task, so that its Idempotency-Key is free for another.
    fn is_refusal(&self) -> bool {
        match self {
            SubmitError::RunAtTooFar | SubmitError::RunAtPastExpiry => true,
            // The record is that of another body.
            SubmitError::BodyMismatch => false,
            SubmitError::Store(error) => match error {
                Error::Full(_) | Error::Disk(_) => true,
                Error::Unavailable(_) | Error::DataLoss(_) | Error::Stopping => false,
                Error::Unconfirmed(_) | Error::Unexpected(_) | Error::Unauthenticated(_) | Error::Denied(_) => false,
            },
        }
    }
}

impl From<Error> for SubmitError {
    fn from(error: Error) -> Self {
        SubmitError::Store(error)
    }
}

impl SubmitOutcome {
    /// Status in the record of a submit that created its task, as `POST /tasks` returns it.
    const CREATED: u16 = 201;
    /// The same for a submit that found a task.
    const EXISTING: u16 = 200;

    fn status(&self) -> u16 {
        if self.is_created { Self::CREATED } else { Self::EXISTING }
    }
}

/// The time in which a list is divided. The rest is then submitted together, so that the time of a list is bounded.
const MAX_DIVIDING: Duration = Duration::from_secs(2);

/// Submits tasks, each as if those before it had their outcomes. Returns the outcomes in order.
pub(super) async fn submit(
    store: &Store,
    ops: &BatchedOps,
    claims: &ClaimEngine,
    task_tracer: &TaskTracer,
    submissions: Vec<Submission>,
) -> Vec<Result<SubmitOutcome, SubmitError>> {
    let (mut outcomes, mut rest) = (Vec::with_capacity(submissions.len()), submissions);
    let started = Instant::now();
    while !rest.is_empty() {
        let count = if started.elapsed() < MAX_DIVIDING { independent(&rest) } else { rest.len() };
        let later = rest.split_off(count);
        outcomes.extend(submit_together(store, ops, claims, task_tracer, rest).await);
        rest = later;
    }
    outcomes
}

/// Returns the number of submissions up to the first whose Idempotency-Key came with another body before it: the outcome
/// of the earlier one decides whether the key is free.
fn independent(submissions: &[Submission]) -> usize {
    let mut bodies = HashMap::new();
    let depends = |(_, idempotency_key): &Submission| {
        idempotency_key.is_some_and(|IdempotencyKey { key, body }| *bodies.entry(key).or_insert(body) != body)
    };
    submissions.iter().position(depends).unwrap_or(submissions.len())
}

/// Submits tasks whose Idempotency-Keys do not depend on each other.
async fn submit_together(
    store: &Store,
    ops: &BatchedOps,
    claims: &ClaimEngine,
    task_tracer: &TaskTracer,
    submissions: Vec<Submission>,
) -> Vec<Result<SubmitOutcome, SubmitError>> {
    let mut opened = open_records(ops, &submissions).await.into_iter();
    let mut pending = Vec::with_capacity(submissions.len());
    // In order; `None` for a pending submission.
    let mut outcomes = Vec::with_capacity(submissions.len());
    for (mut task, idempotency_key) in submissions {
        outcomes.push(match idempotency_key.and_then(|_| opened.next()) {
            None => {
                pending.push((task, idempotency_key));
                None
            }
            Some(Ok(IdempotencyOutcome::Open(id))) => {
                task.id = id;
                task.may_be_stored = true;
                task.slot = id.slot();
                pending.push((task, idempotency_key));
                None
            }
            Some(Ok(IdempotencyOutcome::Completed(id, status))) => {
                Some(existing_task(store, task, id, status == SubmitOutcome::CREATED).await)
            }
            Some(Ok(IdempotencyOutcome::BodyMismatch)) => Some(Err(SubmitError::BodyMismatch)),
            Some(Err(error)) => Some(Err(error.into())),
        });
    }
    let mut submitted = submit_pending(store, ops, claims, task_tracer, pending).await.into_iter();
    outcomes.into_iter().filter_map(|outcome| outcome.or_else(|| submitted.next())).collect()
}

async fn open_records(ops: &BatchedOps, submissions: &[Submission]) -> Vec<store::Result<IdempotencyOutcome>> {
    let records = submissions.iter().filter_map(|(task, idempotency_key)| {
        let IdempotencyKey { key, body } = (*idempotency_key)?;
        Some(IdempotencyRecord { key, body, task_id: task.id, status: None })
    });
    ops.idempotency.send_all(records.collect()).await
}

async fn submit_pending(
    store: &Store,
    ops: &BatchedOps,
    claims: &ClaimEngine,
    task_tracer: &TaskTracer,
    pending: Vec<Submission>,
) -> Vec<Result<SubmitOutcome, SubmitError>> {
    let ids: Vec<TaskId> = pending.iter().map(|(task, _)| task.id).collect();
    let (tasks, keys): (Vec<NewTask>, Vec<Option<IdempotencyKey>>) = pending.into_iter().unzip();
    let started = Instant::now();
    let replies = claims.submit(tasks).await;
    task_tracer.send_submits(started, &replies);
    let (mut outcomes, mut records, mut refused) = (Vec::with_capacity(replies.len()), Vec::new(), Vec::new());
    for ((reply, idempotency_key), task_id) in replies.into_iter().zip(keys).zip(ids) {
        let outcome = match reply {
            Ok((task, submitted)) => outcome(store, task, submitted).await,
            Err(error) => Err(error.into()),
        };
        match (idempotency_key, &outcome) {
            (Some(IdempotencyKey { key, body }), Ok(outcome)) => {
                let status = Some(outcome.status());
                records.push(IdempotencyRecord { key, body, task_id: outcome.task.id, status });
            }
            (Some(IdempotencyKey { key, body }), Err(error)) if error.is_refusal() => {
                refused.push(IdempotencyRecord { key, body, task_id, status: None });
            }
            _ => {}
        }
        outcomes.push(outcome);
    }
    for error in ops.refuse_idempotency.send_all(refused).await.into_iter().filter_map(Result::err) {
        tracing::warn!(%error, "freeing the Idempotency-Key of a refused submit failed");
    }
    for error in ops.idempotency.send_all(records).await.into_iter().filter_map(Result::err) {
        // The task is stored. A retry finds the record open, and the task under its id.
        tracing::warn!(%error, "completing the record of an Idempotency-Key failed");
    }
    outcomes
}

async fn outcome(store: &Store, task: NewTask, submitted: Submitted) -> Result<SubmitOutcome, SubmitError> {
    match submitted {
        Submitted::Created { state, at, run_at, expires_at } => {
            let task = task.into_task(state, at, run_at, expires_at);
            Ok(SubmitOutcome { task, is_created: true, is_deleted: false })
        }
        Submitted::CreatedAfter { at, expires_at, after } => {
            let task = task.into_task(State::Scheduled, at, None, expires_at);
            Ok(SubmitOutcome { task: Task { after: Some(after), ..task }, is_created: true, is_deleted: false })
        }
        Submitted::TooFar => Err(SubmitError::RunAtTooFar),
        Submitted::PastExpiry => Err(SubmitError::RunAtPastExpiry),
        Submitted::AlreadyStored => {
            let id = task.id;
            existing_task(store, task, id, true).await
        }
        Submitted::Existing(holder) | Submitted::Replaced(holder) => existing_task(store, task, holder, false).await,
    }
}

/// Reads the task under `id`. If it has been deleted or cannot be read, its data are those of the submit: a submit that
/// took effect is no error.
async fn existing_task(
    store: &Store,
    submitted: NewTask,
    id: TaskId,
    is_created: bool,
) -> Result<SubmitOutcome, SubmitError> {
    // Boxed: most submits create their task and hold no room for it.
    let read = Box::pin(views::tasks::task(store, id)).await.unwrap_or_else(|error| {
        tracing::warn!(task = %id, %error, "reading a submitted task failed");
        None
    });
    Ok(match read {
        Some(task) => SubmitOutcome { task, is_created, is_deleted: false },
        None => {
            let task = NewTask { id, ..submitted }.into_task(State::Ready, id.created_at(), None, None);
            SubmitOutcome { task, is_created, is_deleted: true }
        }
    })
}
