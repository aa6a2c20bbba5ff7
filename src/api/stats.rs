//! `GET /stats`: the throughput model S = M·N/C with its counters. The fields are flat, for autoscalers.

use axum::extract::State as Shared;
use axum::response::Response;
use serde::Serialize;

use super::extract::Query;
use super::json::as_text::AsText;
use super::problem::{Code, Problem};
use super::queues::queue_not_found;
use super::response;
use super::state::Api;
use super::status_cache::Status;
use crate::domain::limits;
use crate::domain::queue::QueueName;
use crate::domain::throughput::{Inputs, Throughput};
use crate::domain::time::TimestampMs;
use crate::store::Error;
use crate::store::views::queues::{Counts, Queue, queue};
use crate::store::views::stats::{StatsWindow, WindowCounters, read_window};
use crate::store::views::workers::{LiveWorker, live_workers};

#[derive(Serialize)]
struct Stats<'a> {
    queue: Option<&'a str>,
    window_ms: i64,
    window_end: AsText<TimestampMs>,
    m: Option<f64>,
    n: u64,
    c: Option<f64>,
    s: Option<f64>,
    offered_load: Option<f64>,
    utilisation: Option<f64>,
    stable: Option<bool>,
    submitted: u64,
    claimed: u64,
    completed: u64,
    failed: u64,
    released: u64,
    lease_expired: u64,
    returned: u64,
    scheduled: i64,
    ready: i64,
    leased: i64,
    unfinished: i64,
    oldest_ready_age_ms: Option<i64>,
    wait_mean_ms: Option<f64>,
    wait_p50_ms: Option<f64>,
    wait_p95_ms: Option<f64>,
    wait_p99_ms: Option<f64>,
    predicted_wait_probability: Option<f64>,
    predicted_wait_mean_ms: Option<f64>,
    predicted_wait_p50_ms: Option<f64>,
    predicted_wait_p95_ms: Option<f64>,
    predicted_wait_p99_ms: Option<f64>,
    time_to_drain_ms: Option<f64>,
    target_wait_ms: Option<i64>,
    concurrency_needed: Option<u64>,
}

/// The current state of one queue, or of all.
struct CurrentState {
    counts: Counts,
    paused: bool,
    oldest_ready_age_ms: Option<i64>,
}

impl CurrentState {
    fn from_queue(queue: Queue) -> Result<Self, Error> {
        let Queue { name, counts, settings, oldest_ready_age_ms, is_unreadable } = queue;
        // A missing count looks like 0.
        if is_unreadable {
            return Err(Error::Unexpected(format!("a key of queue {name} is unreadable")));
        }
        Ok(CurrentState { counts, paused: settings.paused, oldest_ready_age_ms })
    }

    /// Returns the state of all queues together. The age and the pause are those of the queues in the status.
    fn from_status(Status { dataset, queues }: Status) -> Result<Self, Error> {
        let queues = &queues?.queues;
        let oldest_ready_age_ms = queues.iter().filter_map(|queue| queue.oldest_ready_age_ms).max();
        // A paused queue with ready tasks never drains, so all queues together never drain.
        let paused = queues.iter().any(|queue| queue.paused && queue.counts.ready > 0);
        Ok(CurrentState { counts: dataset.totals, paused, oldest_ready_age_ms })
    }
}

pub(super) async fn read(Shared(api): Shared<Api>, mut query: Query) -> Result<Response, Problem> {
    let name =
        query.optional("queue").map(|name| QueueName::parse(&name).ok_or_else(|| Problem::invalid_queue("?queue")));
    let name = name.transpose()?;
    let window_ms = query.int("window_ms", limits::STATS_WINDOW_MS)?.unwrap_or(limits::STATS_WINDOW_MS.default);
    let target_wait_ms = query.int("target_wait_ms", limits::TARGET_WAIT_MS)?;
    query.deny_unknown()?;
    if window_ms % limits::STATS_BUCKET_MS != 0 {
        return Err(Problem::at("?window_ms", Code::InvalidValue, "window_ms must be a multiple of 5000"));
    }
    let store = api.store();
    // After a data loss, a missing counter looks like 0.
    if let Some(loss) = store.shards().iter().find_map(|shard| shard.breaker.data_loss()) {
        return Err(Error::DataLoss(loss).into());
    }
    let now = match &name {
        Some(name) => CurrentState::from_queue(queue(store, name).await?.ok_or_else(queue_not_found)?)?,
        None => CurrentState::from_status(api.status_cache.read(store).await?)?,
    };
    let CurrentState { counts, paused, oldest_ready_age_ms } = now;
    let StatsWindow { end, counters } = read_window(store, name.as_ref(), window_ms / limits::STATS_BUCKET_MS).await?;
    let workers = live_workers(store, end).await?;
    let serves_queue = |live: &&LiveWorker| name.as_ref().is_none_or(|name| live.worker.queues.contains(name));
    let concurrency = workers.values().filter(serves_queue).map(|live| live.effective_concurrency).sum();
    let to_u64 = |number: i64| u64::try_from(number).unwrap_or(0);
    let inputs = Inputs {
        window_ms: to_u64(window_ms),
        submitted: counters.submitted,
        returned: counters.returned,
        ended: counters.leases_ended(),
        lease_ms: counters.leased_ms,
        concurrency,
        ready: to_u64(counts.ready),
        leased: to_u64(counts.leased),
        paused,
    };
    let throughput = Throughput::compute(&inputs, target_wait_ms.map(to_u64));
    let WindowCounters { submitted, completed, failed, released, lease_expired, returned, ref waits, .. } = counters;
    let predicted = throughput.predicted.as_ref();
    Ok(response::ok(&Stats {
        queue: name.as_ref().map(QueueName::as_str),
        window_ms,
        window_end: AsText(end),
        m: throughput.m,
        n: throughput.n,
        c: throughput.c,
        s: throughput.s,
        offered_load: throughput.offered_load,
        utilisation: throughput.utilisation,
        stable: throughput.stable,
        submitted,
        claimed: waits.count(),
        completed,
        failed,
        released,
        lease_expired,
        returned,
        scheduled: counts.scheduled,
        ready: counts.ready,
        leased: counts.leased,
        unfinished: counts.ready + counts.leased,
        oldest_ready_age_ms,
        wait_mean_ms: counters.mean_wait_ms(),
        wait_p50_ms: waits.quantile(0.5),
        wait_p95_ms: waits.quantile(0.95),
        wait_p99_ms: waits.quantile(0.99),
        predicted_wait_probability: predicted.map(|waiting| waiting.probability),
        predicted_wait_mean_ms: predicted.map(|waiting| waiting.mean_ms),
        predicted_wait_p50_ms: predicted.map(|waiting| waiting.p50_ms),
        predicted_wait_p95_ms: predicted.map(|waiting| waiting.p95_ms),
        predicted_wait_p99_ms: predicted.map(|waiting| waiting.p99_ms),
        time_to_drain_ms: throughput.time_to_drain_ms,
        target_wait_ms,
        concurrency_needed: throughput.concurrency_needed,
    }))
}
