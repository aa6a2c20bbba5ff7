//! Dispatch: every request that changes a task goes through it, and every request that waits.
//!
//! `claim` hands tasks to waiting claims. `batched_ops` combines the items of concurrent requests into few calls of
//! Redis. `events` feeds subscriptions. This module starts them and connects them.

mod batch;
mod batched_ops;
mod batcher;
mod claim;
mod completion_waiters;
mod events;
mod idempotency;
mod metrics;
#[cfg(feature = "pieces")]
#[doc(hidden)]
#[path = "../../benches/pieces/dispatch.rs"]
pub mod pieces;
mod task_spans;
mod worker_registry;

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use rand::RngExt as _;
use tokio::sync::Notify;
use tokio::time::{Instant, timeout};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use uuid::Uuid;

use crate::background;
use crate::config::Limits;
use crate::domain::id::TaskId;
use crate::domain::queue::QueueName;
use crate::domain::slot::Slot;
use crate::metrics::HistogramSnapshot;
use crate::spans::{ExecutionOutcome, Spans};
use crate::store::notify::wakeups::Wakeup;
use crate::store::ops::LeaseEnd;
use crate::store::ops::complete::Completion;
use crate::store::ops::fail::Failure;
use crate::store::ops::release::Release;
use crate::store::views::claims::CompletedLease;
use crate::store::{Error, Shard, Store};

pub use batched_ops::BatchedOps;
pub use claim::delivery::Delivery;
pub use claim::following::{NextClaim, NextTasks};
pub use claim::poll_limit::{PollLimit, Rejection};
pub use claim::waiter::ClaimRequest;
pub use events::ring_buffer::{BufferedEvent, EventData};
pub use events::subscriptions::{Cursor, Subscription};
pub use idempotency::{IdempotencyKey, Submission, SubmitError, SubmitOutcome};
pub use metrics::{Metrics, WakeupCounts};

use claim::ClaimEngine;
use completion_waiters::CompletionWaiters;
use events::subscriptions::Subscriptions;
use task_spans::TaskTracer;
use worker_registry::WorkerRegistry;

/// The result of an operation of dispatch.
type Result<T, E = Error> = std::result::Result<T, E>;

/// The engines of a server, started and connected.
#[derive(Debug)]
pub struct Dispatch {
    store: Store,
    ops: BatchedOps,
    claims: ClaimEngine,
    completion_waiters: CompletionWaiters,
    subscriptions: Arc<Subscriptions>,
    worker_registry: Arc<WorkerRegistry>,
    poll_limit: Arc<PollLimit>,
    task_tracer: Arc<TaskTracer>,
    metrics: Arc<Metrics>,
    /// By shard: notified when wake-ups may have been missed.
    wakeup_gaps: Vec<Notify>,
}

impl Dispatch {
    /// Starts the engines on `tasks`. Each shard is polled every `poll_interval`, plus or minus a third, in case a
    /// wake-up was lost. `limits` bounds waiting requests and buffered events. Spans of traced tasks go to `spans`. All
    /// loops end after `stop`, once their work in progress is done.
    pub fn start(
        store: Store,
        poll_interval: Duration,
        limits: &Limits,
        spans: Spans,
        tasks: &TaskTracker,
        stop: &CancellationToken,
    ) -> Arc<Self> {
        let metrics: Arc<Metrics> = Arc::default();
        let poll_limit = PollLimit::new(limits.max_waiting_requests);
        let task_tracer = Arc::new(TaskTracer::new(spans, &store));
        let claims = ClaimEngine::start(&store, &poll_limit, &task_tracer, &metrics, tasks, stop);
        let worker_registry: Arc<WorkerRegistry> = Arc::default();
        let write_workers =
            worker_registry.clone().run(store.first_shard().clone(), claims.waiters().clone(), stop.clone());
        background::spawn(tasks, "worker_registry", write_workers);
        let subscriptions = Subscriptions::new(&store, limits.max_buffered_events, stop);
        background::spawn(tasks, "event_subscriptions", subscriptions.clone().run());
        let dispatch = Arc::new(Dispatch {
            ops: BatchedOps::new(&store, tasks, stop),
            claims,
            completion_waiters: CompletionWaiters::new(stop),
            subscriptions,
            worker_registry,
            poll_limit,
            task_tracer,
            metrics,
            wakeup_gaps: store.shards().iter().map(|_| Notify::new()).collect(),
            store,
        });
        for shard in dispatch.store.shards() {
            background::spawn(tasks, "poll", dispatch.clone().poll_shard(shard.clone(), poll_interval, stop.clone()));
        }
        background::spawn(tasks, "stop_waiters", dispatch.clone().finish_waits_on_stop(stop.clone()));
        dispatch
    }

    /// Polls a shard until `stop`, at intervals and after each gap in its wake-ups. Shards do not delay one another.
    async fn poll_shard(self: Arc<Self>, shard: Shard, interval: Duration, stop: CancellationToken) {
        let Some(wakeup_gap) = self.wakeup_gaps.get(shard.index) else { return };
        let poll_loop = async {
            loop {
                let pause = interval.mul_f64(rand::rng().random_range(0.67..1.33));
                // Either way, it is time to poll.
                let _ = timeout(pause, wakeup_gap.notified()).await;
                self.claims.poll_shard(&shard).await;
                self.completion_waiters.notify_shard(&self.store, shard.index);
            }
        };
        tokio::select! {
            () = poll_loop => {}
            () = stop.cancelled() => {}
        }
    }

    async fn finish_waits_on_stop(self: Arc<Self>, stop: CancellationToken) {
        stop.cancelled().await;
        self.claims.finish_all();
        self.completion_waiters.notify_all();
    }

    /// Handles a wake-up.
    pub fn on_wakeup(&self, wakeup: &Wakeup) {
        self.metrics.count_wakeup(wakeup);
        match wakeup {
            Wakeup::Ready { shard, priority, queue } => self.claims.on_wakeup(*shard, queue, *priority),
            Wakeup::Ended(id) => self.completion_waiters.notify(id),
            Wakeup::Waiting { server, waiters } => self.claims.on_announcement(*server, waiters),
            Wakeup::Due { .. } => {}
            Wakeup::Interrupted => self.claims.interrupt(),
            Wakeup::Gap { shards } => {
                self.claims.resume(shards);
                self.wakeup_gaps.iter().for_each(Notify::notify_one);
            }
        }
    }

    /// Records that a worker claims, from which address, and with which concurrency.
    pub fn record_claim(&self, request: &ClaimRequest, address: IpAddr, concurrency: u32) {
        self.worker_registry.record_claim(&request.worker, address, concurrency, &request.queues, Instant::now());
    }

    /// Records that a worker has sent a heartbeat.
    pub fn record_heartbeat(&self, worker: &str, address: IpAddr) {
        self.worker_registry.record_heartbeat(worker, address, Instant::now());
    }

    /// Returns tasks for the request, or none after `max_wait`. Dropping the delivery before it is marked as delivered
    /// releases its tasks. At the limit of waiting requests, it returns the tasks that are ready now, or a rejection.
    pub async fn claim(&self, request: ClaimRequest, max_wait: Duration) -> Result<Delivery, Rejection> {
        self.claims.claim(request, max_wait).await
    }

    /// The same for a claim that follows a completion, whose call may have claimed the tasks.
    pub async fn claim_next(
        &self,
        request: ClaimRequest,
        max_wait: Duration,
        next: NextTasks,
    ) -> Result<Delivery, Rejection> {
        self.claims.claim_next(request, max_wait, next).await
    }

    /// The same for a request that may be a retry: tasks leased under its claim id are the result, and if it follows a
    /// repeated completion, those that the completed task keeps.
    pub async fn claim_or_resume(
        &self,
        request: ClaimRequest,
        max_wait: Duration,
        next: NextTasks,
        completed: Option<&CompletedLease>,
    ) -> Result<Delivery, Rejection> {
        self.claims.claim_or_resume(request, max_wait, next, completed).await
    }

    /// The batched operations that need no more than a batch.
    pub fn ops(&self) -> &BatchedOps {
        &self.ops
    }

    /// Items per call, by operation.
    pub fn batch_items(&self) -> Vec<(&'static str, HistogramSnapshot)> {
        let mut all = self.ops.batch_items();
        all.extend(self.claims.batch_items());
        all
    }

    /// Submits tasks, each at most once under its Idempotency-Key. Returns their outcomes in order.
    pub async fn submit(&self, submissions: Vec<Submission>) -> Vec<Result<SubmitOutcome, SubmitError>> {
        idempotency::submit(&self.store, &self.ops, &self.claims, &self.task_tracer, submissions).await
    }

    /// Completes tasks, in order. The call that completes the last may claim for the request that follows it; the claim goes
    /// on with what it returns.
    pub async fn complete(
        &self,
        completions: Vec<Completion>,
        next: Option<NextClaim>,
    ) -> (Vec<Result<LeaseEnd>>, NextTasks) {
        self.claims.complete(completions, next).await
    }

    /// Reports that attempts failed, in order.
    pub async fn fail(&self, failures: Vec<Failure>) -> Vec<Result<LeaseEnd>> {
        self.task_tracer.trace_reports(failures, ExecutionOutcome::Failed, &self.ops.fail).await
    }

    /// Releases tasks without counting an attempt, in order.
    pub async fn release(&self, releases: Vec<Release>) -> Vec<Result<LeaseEnd>> {
        self.task_tracer.trace_reports(releases, ExecutionOutcome::Released, &self.ops.release).await
    }

    /// Returns once the task has ended or is missing, and after `max_wait` at the latest.
    pub async fn wait_until_ended(&self, id: TaskId, max_wait: Duration) -> Result<(), Rejection> {
        self.completion_waiters.wait_until_ended(id, max_wait, &self.ops, &self.poll_limit).await
    }

    /// Subscribes to the events of `queues` (empty: all), from now on or after `cursor`.
    pub async fn subscribe(&self, queues: Vec<QueueName>, cursor: Option<Cursor>) -> Result<Subscription, Rejection> {
        let permit = self.poll_limit.try_acquire().ok_or_else(|| self.poll_limit.reject())?;
        Ok(self.subscriptions.subscribe(permit, queues, cursor).await)
    }

    /// Checks that claims leave out no shard, and that each shard accepts a write. The write changes no task.
    ///
    /// # Errors
    /// The error of the first shard that fails.
    pub async fn check_readiness(&self) -> Result<()> {
        if let Some(error) = self.claims.unavailable_error() {
            return Err(error);
        }
        for shard in self.store.shards() {
            let (first, _) = self.store.layout().slot_range(shard.index);
            if let Some(slot) = Slot::new(first) {
                self.ops.subscribe_completion.send(TaskId::new(Uuid::nil(), slot)).await?;
            }
        }
        Ok(())
    }

    /// The limit of waiting requests.
    pub fn poll_limit(&self) -> &PollLimit {
        &self.poll_limit
    }

    /// The metrics of claims, deliveries and wake-ups.
    pub fn metrics(&self) -> &Metrics {
        &self.metrics
    }

    /// The store.
    pub fn store(&self) -> &Store {
        &self.store
    }
}
