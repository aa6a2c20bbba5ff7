//! `/tasks/{id}`: one task is read, waited for, called off, run again, forgotten.

use axum::extract::State as Shared;
use axum::http::{HeaderMap, StatusCode};
use axum::response::{IntoResponse, Response};

use super::extract::{NoBody, PathId, Query, wait};
use super::problem::{Code, Problem};
use super::shapes::TaskShape;
use super::{Api, metrics, reply};
use crate::domain::id::TaskId;
use crate::domain::limits;
use crate::store::ops::cancel::Cancelled;
use crate::store::ops::remove::Removed;
use crate::store::ops::retry::Revived;
use crate::store::views;

pub(super) async fn read(
    Shared(api): Shared<Api>,
    PathId(id): PathId,
    mut query: Query,
    headers: HeaderMap,
) -> Result<Response, Problem> {
    let asked = query.int("wait_ms", limits::WAIT_MS)?;
    query.finish()?;
    let (wait, applied) = wait(asked, &headers)?;
    drop(headers);
    if !wait.is_zero() {
        api.dispatch.ended(id, wait).await?;
    }
    let shown = shown(&api, id).await.map(|mut response| {
        if let Some(applied) = applied {
            response.headers_mut().insert("preference-applied", applied);
        }
        response
    });
    let mut response = shown.into_response();
    // Whatever there is to be seen: a task that is not there was waited for too.
    if !wait.is_zero() {
        metrics::mark_poll(&mut response);
    }
    Ok(response)
}

async fn shown(api: &Api, id: TaskId) -> Result<Response, Problem> {
    let task = views::tasks::task(api.store(), id).await?.ok_or_else(Problem::no_task)?;
    Ok(reply::ok(&TaskShape::from(&task)))
}

pub(super) async fn cancel(Shared(api): Shared<Api>, PathId(id): PathId, _body: NoBody) -> Result<Response, Problem> {
    match api.dispatch.cancel(id).await? {
        Cancelled::Now | Cancelled::Before | Cancelled::Flagged => shown(&api, id).await,
        Cancelled::Ended(state) => {
            Err(Problem::new(Code::AlreadyEnded, format!("the task is {state}")).with_state(state))
        }
        Cancelled::Unknown => Err(Problem::no_task()),
    }
}

pub(super) async fn retry(Shared(api): Shared<Api>, PathId(id): PathId, _body: NoBody) -> Result<Response, Problem> {
    match api.dispatch.retry(id).await? {
        Revived::Ready => shown(&api, id).await,
        Revived::Unretryable(state) => {
            let detail = format!("the task is {state}; dead, cancelled and expired ones can be retried");
            Err(Problem::new(Code::NotRetryable, detail).with_state(state))
        }
        Revived::KeyHeld(state) => {
            let detail = "another task that has not ended holds this one's dedupe key";
            Err(Problem::new(Code::DedupeConflict, detail).with_state(state))
        }
        Revived::Unknown => Err(Problem::no_task()),
    }
}

pub(super) async fn remove(Shared(api): Shared<Api>, PathId(id): PathId) -> Result<Response, Problem> {
    match api.dispatch.delete(id).await? {
        Removed::Gone => Ok(StatusCode::NO_CONTENT.into_response()),
        Removed::Refused(state) => {
            let detail = format!("the task is {state}; only an ended one can be deleted");
            Err(Problem::new(Code::NotEnded, detail).with_state(state))
        }
        Removed::Unknown => Err(Problem::no_task()),
    }
}
