//! The claim engine: waiting claims, the claim loop of each shard, and the delivery of tasks.
//!
//! Waiting costs no connection to Redis: waiters are kept in memory, and one claim loop per shard calls Redis for many
//! of them at once. A claim runs in that loop, never in the future of a request, which a disconnect may drop. Tasks
//! claimed for a client that has disconnected are released.

mod claim_loop;
pub(super) mod delivery;
mod parts;
pub(super) mod poll_limit;
mod ready_cache;
mod survey;
mod wait_queue;
pub(super) mod waiter;
pub(super) mod waiters;

use std::sync::Arc;
use std::time::Duration;

use tokio::time::{Instant, timeout_at};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::batcher::with_request_timeout;
use super::metrics::Metrics;
use super::task_spans::TaskTracer;
use crate::background;
use crate::domain::claim_id::ClaimId;
use crate::domain::queue::QueueName;
use crate::domain::task::ClaimedTask;
use crate::store::{self, Error, Shard, Store, views};
use delivery::{Delivery, UndeliveredReleaser};
use poll_limit::{PollLimit, Rejection};
use waiter::ClaimRequest;
use waiters::Waiters;

/// Claims tasks for waiting requests.
#[derive(Debug)]
pub(super) struct ClaimEngine {
    store: Store,
    waiters: Arc<Waiters>,
    poll_limit: Arc<PollLimit>,
    task_tracer: Arc<TaskTracer>,
    metrics: Arc<Metrics>,
}

impl ClaimEngine {
    /// Starts a claim loop per shard. The loops end after `stop`.
    pub(super) fn start(
        store: &Store,
        poll_limit: &Arc<PollLimit>,
        task_tracer: &Arc<TaskTracer>,
        metrics: &Arc<Metrics>,
        tasks: &TaskTracker,
        stop: &CancellationToken,
    ) -> Self {
        let waiters = Arc::new(Waiters::new(store.shards().len(), stop));
        let releaser = UndeliveredReleaser::new(store, metrics, tasks, stop);
        for shard in store.shards() {
            let (shard, waiters, releaser) = (shard.clone(), waiters.clone(), releaser.clone());
            let claim_loop = claim_loop::run(shard, waiters, releaser, metrics.clone(), stop.clone());
            background::spawn(tasks, "claim_loop", claim_loop);
        }
        ClaimEngine {
            store: store.clone(),
            waiters,
            poll_limit: poll_limit.clone(),
            task_tracer: task_tracer.clone(),
            metrics: metrics.clone(),
        }
    }

    /// Returns tasks for the request, or none after `max_wait`. At the limit of waiting requests, it returns the tasks
    /// that are ready now, or a rejection.
    pub(super) async fn claim(&self, request: ClaimRequest, max_wait: Duration) -> Result<Delivery, Rejection> {
        let mut delivery = self.wait_for_tasks(request, max_wait).await?;
        delivery.set_wait_spans(self.task_tracer.wait_spans(delivery.tasks()).await);
        Ok(delivery)
    }

    /// The same for a request that may be a retry: tasks leased under its claim id are the result.
    pub(super) async fn claim_or_resume(
        &self,
        request: ClaimRequest,
        max_wait: Duration,
    ) -> Result<Delivery, Rejection> {
        let Some(claim_id) = request.claim_id else { return self.claim(request, max_wait).await };
        let already_leased = self.leased_under(&claim_id).await?;
        if !already_leased.is_empty() {
            return Ok(Delivery::resumed(already_leased));
        }
        let delivery = self.claim(request, max_wait).await?;
        if !delivery.tasks().is_empty() {
            return Ok(delivery);
        }
        // The first request may have been in flight at the first check.
        Ok(Delivery::resumed(self.leased_under(&claim_id).await?))
    }

    async fn leased_under(&self, claim_id: &ClaimId) -> Result<Vec<ClaimedTask>, Rejection> {
        views::claims::claimed(&self.store, claim_id).await?.ok_or(Rejection::ClaimIdMismatch)
    }

    async fn wait_for_tasks(&self, request: ClaimRequest, max_wait: Duration) -> Result<Delivery, Rejection> {
        if max_wait.is_zero() {
            return Ok(self.claim_now(request).await?);
        }
        let Some(_permit) = self.poll_limit.try_acquire() else {
            let delivery = self.claim_now(request).await?;
            return match delivery.tasks().is_empty() {
                false => Ok(delivery),
                true => Err(self.poll_limit.reject()),
            };
        };
        let deadline = Instant::now() + max_wait;
        let mut wait_handle = survey::register(&self.waiters, &self.store, request, true).await;
        Ok(match timeout_at(deadline, wait_handle.reply()).await {
            Ok(reply) => reply?,
            // A call that includes the waiter may still bring tasks.
            Err(_) => with_request_timeout(wait_handle.cancel()).await?,
        })
    }

    /// Checks every shard once.
    async fn claim_now(&self, request: ClaimRequest) -> store::Result<Delivery> {
        let mut wait_handle = survey::register(&self.waiters, &self.store, request, false).await;
        with_request_timeout(wait_handle.reply()).await
    }

    /// Looks up in Redis which queues with waiters have ready tasks in the shard, in case a wake-up was lost.
    pub(super) async fn poll_shard(&self, shard: &Shard) {
        let queues = self.waiters.queues();
        if queues.is_empty() {
            return;
        }
        self.metrics.counters.polls.inc();
        let sent_at = self.waiters.epoch();
        match views::queues::ready_queues(shard, &queues).await {
            Ok(ready) => self.waiters.apply_poll(shard.index, &queues, sent_at, ready),
            Err(error) => tracing::debug!(%error, shard = shard.index, "polling for ready tasks failed"),
        }
    }

    /// Handles a wake-up: the queue has a ready task of this priority.
    pub(super) fn on_wakeup(&self, shard: usize, queue: &QueueName, priority: u8) {
        self.waiters.on_wakeup(shard, queue, priority);
    }

    /// The waiters.
    pub(super) fn waiters(&self) -> &Arc<Waiters> {
        &self.waiters
    }

    /// The error of a shard that claims leave out, if there is one.
    pub(super) fn unavailable_error(&self) -> Option<Error> {
        self.waiters.unavailable_error()
    }

    /// Ends all waits.
    pub(super) fn finish_all(&self) {
        self.waiters.finish_all();
    }
}
