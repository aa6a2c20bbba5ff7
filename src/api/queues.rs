//! `/queues`: lists, reads, pauses, resumes, purges and removes queues.

use axum::extract::State as Shared;
use axum::response::Response;
use futures_util::future::try_join_all;
use serde::Serialize;

use super::body::{EmptyBody, SingleBody};
use super::extract::{PathQueue, Query};
use super::json::fields::Fields;
use super::json::shapes::QueueJson;
use super::list::{invalid_cursor, set_next_link};
use super::problem::{Code, Problem};
use super::response;
use super::state::Api;
use crate::domain::limits;
use crate::domain::queue::QueueName;
use crate::domain::state::State;
use crate::store::queues::{self, Removal, set_queue_setting};
use crate::store::settings::SettingChange;
use crate::store::views::queues::{Queue, queue, queue_names};

#[derive(Serialize)]
struct Page<'a> {
    queues: Vec<QueueJson<'a>>,
    next_cursor: Option<&'a str>,
}

pub(super) async fn list(Shared(api): Shared<Api>, mut query: Query) -> Result<Response, Problem> {
    let limit = query.int("limit", limits::PAGE_SIZE)?.unwrap_or(limits::PAGE_SIZE.default);
    let after =
        query.optional("cursor").map(|cursor| QueueName::parse(&cursor).ok_or_else(invalid_cursor)).transpose()?;
    query.deny_unknown()?;
    let limit = usize::try_from(limit).unwrap_or(1);
    let mut found = queue_names(api.store(), after.as_ref(), limit + 1).await?;
    let more = found.len() > limit;
    found.truncate(limit);
    let next = found.last().filter(|_| more).cloned();
    let mut queues: Vec<Queue> = Vec::new();
    for chunk in found.chunks(16) {
        let read = try_join_all(chunk.iter().map(|name| queue(api.store(), name))).await?;
        queues.extend(read.into_iter().flatten());
    }
    let next = next.as_ref().map(QueueName::as_str);
    let mut response = response::ok(&Page { queues: queues.iter().map(QueueJson::from).collect(), next_cursor: next });
    if let Some(next) = next {
        set_next_link(&mut response, &format!("</queues?limit={limit}&cursor={next}>; rel=\"next\""));
    }
    Ok(response)
}

pub(super) async fn read(Shared(api): Shared<Api>, PathQueue(name): PathQueue) -> Result<Response, Problem> {
    queue_response(&api, &name).await
}

pub(super) fn queue_not_found() -> Problem {
    Problem::new(Code::QueueNotFound, "no task was ever submitted to this queue and no setting was made")
}

async fn queue_response(api: &Api, name: &QueueName) -> Result<Response, Problem> {
    let found = queue(api.store(), name).await?.ok_or_else(queue_not_found)?;
    Ok(response::ok(&QueueJson::from(&found)))
}

pub(super) async fn pause(
    Shared(api): Shared<Api>,
    PathQueue(name): PathQueue,
    _body: EmptyBody,
) -> Result<Response, Problem> {
    set_queue_setting(api.store(), &name, SettingChange::paused(true)).await?;
    queue_response(&api, &name).await
}

pub(super) async fn resume(
    Shared(api): Shared<Api>,
    PathQueue(name): PathQueue,
    _body: EmptyBody,
) -> Result<Response, Problem> {
    set_queue_setting(api.store(), &name, SettingChange::paused(false)).await?;
    queue_response(&api, &name).await
}

#[derive(Serialize)]
struct PurgeResponse {
    deleted: u64,
    more: bool,
}

pub(super) async fn purge(
    Shared(api): Shared<Api>,
    PathQueue(name): PathQueue,
    body: SingleBody,
) -> Result<Response, Problem> {
    let states = parse_states(&body.object()?)?;
    let (deleted, more) = queues::purge(api.store(), &name, &states).await?;
    Ok(response::ok(&PurgeResponse { deleted, more }))
}

pub(super) async fn remove(Shared(api): Shared<Api>, PathQueue(name): PathQueue) -> Result<Response, Problem> {
    match queues::remove(api.store(), &name).await? {
        Removal::Done(deleted) => Ok(response::ok(&PurgeResponse { deleted, more: false })),
        Removal::Unfinished(deleted) => Ok(response::ok(&PurgeResponse { deleted, more: true })),
        Removal::NotEmpty(tasks) => Err(Problem::new(
            Code::QueueNotEmpty,
            format!("at least {tasks} tasks wait or are leased: purge those that wait, and let the others end"),
        )),
    }
}

/// Parses the states to purge.
pub(super) fn parse_states(object: &Fields<'_>) -> Result<Vec<State>, Problem> {
    let purgeable = State::ALL.into_iter().filter(|state| *state != State::Leased);
    let purgeable: Vec<(&str, State)> = purgeable.map(|state| (state.as_str(), state)).collect();
    let field = object.required("states")?;
    let list = field.list(purgeable.len(), Code::TooLong)?;
    if list.is_empty() {
        return Err(field.must(Code::InvalidValue, "must name at least one state"));
    }
    let states: Vec<State> = list.fields().map(|state| state.one_of(&purgeable)).collect::<Result<_, _>>()?;
    object.deny_unknown()?;
    Ok(states)
}
