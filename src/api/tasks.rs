//! `/tasks/{id}`: reads, awaits, cancels, retries, runs, releases and deletes one task.

use axum::extract::{Extension, State as Shared};
use axum::http::{HeaderMap, StatusCode};
use axum::response::{IntoResponse, Response};

use super::body::{EmptyBody, OptionalBody};
use super::extract::{PathId, Query, parse_wait};
use super::json::fields::Fields;
use super::json::shapes::TaskJson;
use super::problem::{Code, Problem};
use super::request_metrics::mark_long_poll;
use super::response;
use super::state::Api;
use crate::domain::id::TaskId;
use crate::domain::limits;
use crate::domain::state::State;
use crate::domain::task::Task;
use crate::http_server::LongPoll;
use crate::store::ops::release::{Release, Releaser};
use crate::store::ops::{LeaseEnd, LeaseRef};
use crate::store::{ops, views};

pub(super) async fn read(
    Shared(api): Shared<Api>,
    Extension(long_poll): Extension<LongPoll>,
    PathId(id): PathId,
    mut query: Query,
    headers: HeaderMap,
) -> Result<Response, Problem> {
    let wait_ms = query.int("wait_ms", limits::WAIT_MS)?;
    query.deny_unknown()?;
    let (wait, applied) = parse_wait(wait_ms, &headers)?;
    drop(headers);
    if !wait.is_zero() {
        long_poll.begin();
        api.dispatch.wait_until_ended(id, wait).await?;
    }
    let shown_task = task_response(&api, id).await.map(|mut response| {
        if let Some(applied) = applied {
            response.headers_mut().insert("preference-applied", applied);
        }
        response
    });
    let mut response = shown_task.into_response();
    // Also for a task that does not exist: the request waited.
    if !wait.is_zero() {
        mark_long_poll(&mut response);
    }
    Ok(response)
}

/// Returns the task after its change. If it cannot be read any more, it is returned as it was read before the change, in
/// its new state: a change that was made is no error.
async fn changed_task_response(api: &Api, before: Task, state: State) -> Result<Response, Problem> {
    let task = match views::tasks::task(api.store(), before.id).await {
        Ok(Some(task)) => task,
        Ok(None) => Task { state, ..before },
        Err(error) => {
            tracing::warn!(task = %before.id, %error, "reading a changed task failed");
            Task { state, ..before }
        }
    };
    Ok(response::ok(&TaskJson::from(&task)))
}

async fn read_task(api: &Api, id: TaskId) -> Result<Task, Problem> {
    views::tasks::task(api.store(), id).await?.ok_or_else(Problem::task_not_found)
}

async fn task_response(api: &Api, id: TaskId) -> Result<Response, Problem> {
    Ok(response::ok(&TaskJson::from(&read_task(api, id).await?)))
}

pub(super) async fn cancel(
    Shared(api): Shared<Api>,
    PathId(id): PathId,
    _body: EmptyBody,
) -> Result<Response, Problem> {
    use ops::cancel::Cancelled;
    let before = read_task(&api, id).await?;
    match api.dispatch.ops().cancel(id).await? {
        Cancelled::Now | Cancelled::AlreadyCancelled => changed_task_response(&api, before, State::Cancelled).await,
        Cancelled::Requested => changed_task_response(&api, before, State::Leased).await,
        Cancelled::Expired => Err(already_ended(State::Expired)),
        Cancelled::Ended(state) => Err(already_ended(state)),
        Cancelled::Unknown => Err(Problem::task_not_found()),
    }
}

fn already_ended(state: State) -> Problem {
    Problem::new(Code::AlreadyEnded, format!("the task is {state}")).with_state(state)
}

pub(super) async fn retry(Shared(api): Shared<Api>, PathId(id): PathId, _body: EmptyBody) -> Result<Response, Problem> {
    use ops::retry::Retried;
    let before = read_task(&api, id).await?;
    match api.dispatch.ops().retry(id).await? {
        Retried::Ready => changed_task_response(&api, before, State::Ready).await,
        Retried::NotRetryable(state) => {
            let detail = format!("the task is {state}; only a dead, cancelled or expired task can be retried");
            Err(Problem::new(Code::NotRetryable, detail).with_state(state))
        }
        Retried::DedupeKeyTaken(state) => {
            let detail = "another task that has not ended holds the dedupe key of this task";
            Err(Problem::new(Code::DedupeConflict, detail).with_state(state))
        }
        Retried::Unknown => Err(Problem::task_not_found()),
    }
}

pub(super) async fn run(Shared(api): Shared<Api>, PathId(id): PathId, _body: EmptyBody) -> Result<Response, Problem> {
    use ops::run_now::RunNow;
    let not_waiting = |state: State| {
        let detail = format!("the task is {state}; only a scheduled or ready task can be run");
        Err(Problem::new(Code::NotWaiting, detail).with_state(state))
    };
    let before = read_task(&api, id).await?;
    match api.dispatch.ops().run_now(id).await? {
        RunNow::Ready | RunNow::AlreadyReady => changed_task_response(&api, before, State::Ready).await,
        RunNow::Waits => changed_task_response(&api, before, State::Scheduled).await,
        RunNow::Expired => not_waiting(State::Expired),
        RunNow::NotWaiting(state) => not_waiting(state),
        RunNow::Unknown => Err(Problem::task_not_found()),
    }
}

/// Parses the body of `POST /tasks/{id}/release`.
pub(super) fn parse_release(id: TaskId, object: &Fields<'_>) -> Result<Release, Problem> {
    let acquired = object.optional_int("acquired", limits::ACQUIRED)?;
    let delay_ms = object.int_or_default("delay_ms", limits::DELAY_MS)?;
    object.deny_unknown()?;
    Ok(Release { lease_ref: LeaseRef { id, lease: None }, by: Releaser::Client { acquired }, delay_ms })
}

pub(super) async fn release(
    Shared(api): Shared<Api>,
    PathId(id): PathId,
    body: OptionalBody,
) -> Result<Response, Problem> {
    let release = parse_release(id, &body.object()?)?;
    let before = read_task(&api, id).await?;
    let ended = api.dispatch.release(vec![release]).await.pop();
    match ended.ok_or_else(|| Problem::new(Code::Internal, "the release has no result"))?? {
        LeaseEnd::Done { state, .. } => changed_task_response(&api, before, state).await,
        LeaseEnd::LeaseLost(state) => {
            let detail = match state {
                State::Leased => "the lease has expired, or is not that of the delivery acquired".to_owned(),
                state => format!("the task is {state}; only a leased task can be released"),
            };
            Err(Problem::new(Code::NotLeased, detail).with_state(state))
        }
        LeaseEnd::Unknown => Err(Problem::task_not_found()),
    }
}

pub(super) async fn delete(Shared(api): Shared<Api>, PathId(id): PathId) -> Result<Response, Problem> {
    use ops::delete::Deleted;
    match api.dispatch.ops().delete(id).await? {
        Deleted::Now => Ok(StatusCode::NO_CONTENT.into_response()),
        Deleted::NotAllowed(state) => {
            let detail = format!("the task is {state}; only an ended task can be deleted");
            Err(Problem::new(Code::NotEnded, detail).with_state(state))
        }
        Deleted::Unknown => Err(Problem::task_not_found()),
    }
}
