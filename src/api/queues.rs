//! `/queues`: what stands where, and who may pass.

use axum::extract::State as Shared;
use axum::response::Response;
use futures_util::future::try_join_all;
use serde::Serialize;

use super::extract::{NoBody, OneBody, PathQueue, Query};
use super::listing::{bad_cursor, mark_next};
use super::object::Object;
use super::problem::{Code, Problem};
use super::shapes::QueueShape;
use super::{Api, reply};
use crate::domain::limits;
use crate::domain::queue::{QueueName, Settings};
use crate::domain::state::State;
use crate::store::views::queues::{Queue, names, queue};

#[derive(Serialize)]
struct Page<'a> {
    queues: Vec<QueueShape<'a>>,
    next_cursor: Option<&'a str>,
}

pub(super) async fn list(Shared(api): Shared<Api>, mut query: Query) -> Result<Response, Problem> {
    let limit = query.int("limit", limits::PAGE)?.unwrap_or(limits::PAGE.default);
    let after = query.take("cursor").map(|cursor| QueueName::parse(&cursor).ok_or_else(bad_cursor)).transpose()?;
    query.finish()?;
    let limit = usize::try_from(limit).unwrap_or(1);
    let mut found = names(api.store(), after.as_ref(), limit + 1).await?;
    let more = found.len() > limit;
    found.truncate(limit);
    let next = found.last().filter(|_| more).cloned();
    let mut queues: Vec<Queue> = Vec::new();
    for chunk in found.chunks(16) {
        let read = try_join_all(chunk.iter().map(|name| queue(api.store(), name))).await?;
        queues.extend(read.into_iter().flatten());
    }
    let next = next.as_ref().map(QueueName::as_str);
    let mut response = reply::ok(&Page { queues: queues.iter().map(QueueShape::from).collect(), next_cursor: next });
    if let Some(next) = next {
        mark_next(&mut response, &format!("</queues?limit={limit}&cursor={next}>; rel=\"next\""));
    }
    Ok(response)
}

pub(super) async fn read(Shared(api): Shared<Api>, PathQueue(name): PathQueue) -> Result<Response, Problem> {
    shown(&api, &name).await
}

pub(super) fn no_queue() -> Problem {
    Problem::new(Code::QueueNotFound, "nothing was ever submitted to this queue or set of it")
}

async fn shown(api: &Api, name: &QueueName) -> Result<Response, Problem> {
    let found = queue(api.store(), name).await?.ok_or_else(no_queue)?;
    Ok(reply::ok(&QueueShape::from(&found)))
}

pub(super) async fn pause(
    Shared(api): Shared<Api>,
    PathQueue(name): PathQueue,
    _body: NoBody,
) -> Result<Response, Problem> {
    api.dispatch.configure(&name, Settings { paused: true }).await?;
    shown(&api, &name).await
}

pub(super) async fn resume(
    Shared(api): Shared<Api>,
    PathQueue(name): PathQueue,
    _body: NoBody,
) -> Result<Response, Problem> {
    api.dispatch.configure(&name, Settings { paused: false }).await?;
    shown(&api, &name).await
}

#[derive(Serialize)]
struct Purged {
    moved: u64,
    more: bool,
}

const PURGEABLE: [(&str, State); 6] = [
    ("scheduled", State::Scheduled),
    ("ready", State::Ready),
    ("completed", State::Completed),
    ("dead", State::Dead),
    ("cancelled", State::Cancelled),
    ("expired", State::Expired),
];

pub(super) async fn purge(
    Shared(api): Shared<Api>,
    PathQueue(name): PathQueue,
    body: OneBody,
) -> Result<Response, Problem> {
    let states = purged(&body.object()?)?;
    let (moved, more) = api.dispatch.purge(&name, &states).await?;
    Ok(reply::ok(&Purged { moved, more }))
}

/// Reads which states are to be purged.
pub(super) fn purged(object: &Object<'_>) -> Result<Vec<State>, Problem> {
    let field = object.need("states")?;
    let list = field.list(PURGEABLE.len(), Code::TooLong)?;
    if list.is_empty() {
        return Err(field.refuse(Code::InvalidValue, "name at least one state"));
    }
    let states: Vec<State> = list.fields().map(|state| state.one_of(&PURGEABLE)).collect::<Result<_, _>>()?;
    object.finish()?;
    Ok(states)
}
