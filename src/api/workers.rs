//! `GET /workers`: lists the live workers and their leases.

use std::collections::HashSet;
use std::ops::Bound;

use axum::extract::State as Shared;
use axum::response::Response;
use serde::Serialize;

use super::extract::Query;
use super::json::as_text::AsText;
use super::list::{invalid_cursor, percent_encode, set_next_link};
use super::problem::Problem;
use super::response;
use super::state::Api;
use crate::domain::id::TaskId;
use crate::domain::limits;
use crate::domain::queue::QueueName;
use crate::domain::time::TimestampMs;
use crate::store::views::next_due::next_due;
use crate::store::views::workers::{HeldTask, LiveWorker, held_tasks, live_workers};

/// Maximum number of tasks in the response for one worker.
const MAX_TASKS_SHOWN: usize = 100;

#[derive(Serialize)]
struct Page<'a> {
    workers: Vec<WorkerJson<'a>>,
    next_cursor: Option<&'a str>,
}

#[derive(Serialize)]
struct WorkerJson<'a> {
    worker: &'a str,
    address: Option<String>,
    concurrency: u32,
    effective_concurrency: u64,
    queues: Vec<&'a str>,
    held: Option<usize>,
    tasks: Vec<HeldTaskJson<'a>>,
    first_seen_at: Option<AsText<TimestampMs>>,
    last_seen_at: Option<AsText<TimestampMs>>,
}

#[derive(Serialize)]
struct HeldTaskJson<'a> {
    id: AsText<TaskId>,
    queue: &'a str,
    lease_until: AsText<TimestampMs>,
}

pub(super) async fn list(Shared(api): Shared<Api>, mut query: Query) -> Result<Response, Problem> {
    let limit = query.int("limit", limits::PAGE_SIZE)?.unwrap_or(limits::PAGE_SIZE.default);
    let after = query.optional("cursor");
    query.deny_unknown()?;
    if after.as_ref().is_some_and(|name| name.is_empty() || name.len() > limits::MAX_NAME_BYTES) {
        return Err(invalid_cursor());
    }
    let limit = usize::try_from(limit).unwrap_or(1);
    let store = api.store();
    let now = next_due(store.first_shard()).await?.now;
    let workers = live_workers(store, now).await?;
    let from = after.as_ref().map_or(Bound::Unbounded, Bound::Excluded);
    let mut remaining = workers.range::<String, _>((from, Bound::Unbounded)).map(|(_, live)| live);
    let page: Vec<&LiveWorker> = remaining.by_ref().take(limit).collect();
    let next = page.last().filter(|_| remaining.next().is_some()).map(|last| last.worker.name.as_str());
    let names: HashSet<&str> = page.iter().map(|live| live.worker.name.as_str()).collect();
    let (held, is_complete) = held_tasks(store, &names, now).await?;
    let shapes = page.iter().map(|live| {
        let held = held.get(&live.worker.name).map_or(&[][..], Vec::as_slice);
        WorkerJson {
            worker: &live.worker.name,
            address: live.worker.address.map(|address| address.to_string()),
            concurrency: live.worker.concurrency,
            effective_concurrency: live.effective_concurrency,
            queues: live.worker.queues.iter().map(QueueName::as_str).collect(),
            held: is_complete.then_some(held.len()),
            tasks: held.iter().take(MAX_TASKS_SHOWN).map(HeldTaskJson::from).collect(),
            first_seen_at: live.seen.map(|(first, _)| AsText(first)),
            last_seen_at: live.seen.map(|(_, last)| AsText(last)),
        }
    });
    let mut response = response::ok(&Page { workers: shapes.collect(), next_cursor: next });
    if let Some(next) = next {
        set_next_link(
            &mut response,
            &format!("</workers?limit={limit}&cursor={}>; rel=\"next\"", percent_encode(next)),
        );
    }
    Ok(response)
}

impl<'a> From<&'a HeldTask> for HeldTaskJson<'a> {
    fn from(HeldTask { id, queue, lease_until }: &'a HeldTask) -> Self {
        HeldTaskJson { id: AsText(*id), queue: queue.as_str(), lease_until: AsText(*lease_until) }
    }
}
