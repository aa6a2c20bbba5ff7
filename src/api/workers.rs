//! `GET /workers`: who is alive, and holds what.

use std::collections::HashSet;
use std::ops::Bound;

use axum::extract::State as Shared;
use axum::response::Response;
use serde::Serialize;

use super::extract::Query;
use super::listing::{bad_cursor, encoded, mark_next};
use super::problem::Problem;
use super::reply::Shown;
use super::{Api, reply};
use crate::domain::id::TaskId;
use crate::domain::limits;
use crate::domain::queue::QueueName;
use crate::domain::time::Millis;
use crate::store::views::horizon::horizon;
use crate::store::views::workers::{Alive, Holding, alive, holdings};

/// Tasks shown of one worker.
const SHOWN: usize = 100;

#[derive(Serialize)]
struct Page<'a> {
    workers: Vec<WorkerShape<'a>>,
    next_cursor: Option<&'a str>,
}

#[derive(Serialize)]
struct WorkerShape<'a> {
    worker: &'a str,
    address: Option<String>,
    concurrency: u32,
    lanes: u64,
    queues: Vec<&'a str>,
    held: Option<usize>,
    tasks: Vec<HoldingShape<'a>>,
    first_seen_at: Option<Shown<Millis>>,
    last_seen_at: Option<Shown<Millis>>,
}

#[derive(Serialize)]
struct HoldingShape<'a> {
    id: Shown<TaskId>,
    queue: &'a str,
    lease_until: Shown<Millis>,
}

pub(super) async fn list(Shared(api): Shared<Api>, mut query: Query) -> Result<Response, Problem> {
    let limit = query.int("limit", limits::PAGE)?.unwrap_or(limits::PAGE.default);
    let after = query.take("cursor");
    query.finish()?;
    if after.as_ref().is_some_and(|name| name.is_empty() || name.len() > limits::NAME_BYTES) {
        return Err(bad_cursor());
    }
    let limit = usize::try_from(limit).unwrap_or(1);
    let store = api.store();
    let all = alive(store, horizon(store.home()).await?.now).await?;
    let from = after.as_ref().map_or(Bound::Unbounded, Bound::Excluded);
    let mut behind = all.range::<String, _>((from, Bound::Unbounded)).map(|(_, alive)| alive);
    let page: Vec<&Alive> = behind.by_ref().take(limit).collect();
    let next = page.last().filter(|_| behind.next().is_some()).map(|last| last.worker.name.as_str());
    let names: HashSet<&str> = page.iter().map(|alive| alive.worker.name.as_str()).collect();
    let (held, is_all) = holdings(store, &names).await?;
    let shapes = page.iter().map(|alive| {
        let held = held.get(&alive.worker.name).map_or(&[][..], Vec::as_slice);
        WorkerShape {
            worker: &alive.worker.name,
            address: alive.worker.address.map(|address| address.to_string()),
            concurrency: alive.worker.concurrency,
            lanes: alive.lanes,
            queues: alive.worker.queues.iter().map(QueueName::as_str).collect(),
            held: is_all.then_some(held.len()),
            tasks: held.iter().take(SHOWN).map(HoldingShape::from).collect(),
            first_seen_at: alive.seen.map(|(first, _)| Shown(first)),
            last_seen_at: alive.seen.map(|(_, last)| Shown(last)),
        }
    });
    let mut response = reply::ok(&Page { workers: shapes.collect(), next_cursor: next });
    if let Some(next) = next {
        mark_next(&mut response, &format!("</workers?limit={limit}&cursor={}>; rel=\"next\"", encoded(next)));
    }
    Ok(response)
}

impl<'a> From<&'a Holding> for HoldingShape<'a> {
    fn from(Holding { id, queue, until }: &'a Holding) -> Self {
        HoldingShape { id: Shown(*id), queue: queue.as_str(), lease_until: Shown(*until) }
    }
}
