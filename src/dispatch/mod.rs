//! Hands tasks to those who wait, and gathers what concurrent requests want into few calls of Redis.
//!
//! Waiters are kept in memory (`waiters`); one pump per shard (`pump`) looks for them; no connection is held per
//! waiter. Claiming runs in the pump, never in a future that a disconnect can drop: what a waiter that has gone
//! would have got is given back (`delivery`).

mod batched_ops;
mod batcher;
mod claim;
mod completion_waiters;
mod events;
mod metrics;
#[cfg(feature = "pieces")]
#[doc(hidden)]
pub mod pieces;
mod task_spans;
mod worker_registry;

use std::collections::HashSet;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use rand::RngExt as _;
use tokio::sync::Notify;
use tokio::time::{Instant, timeout};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use uuid::Uuid;

use crate::config::Limits;
use crate::domain::digest::Digest;
use crate::domain::id::TaskId;
use crate::domain::limits;
use crate::domain::queue::{QueueName, QueueSettings};
use crate::domain::slot::Slot;
use crate::domain::state::State;
use crate::domain::task::NewTask;
use crate::spans::{ExecutionOutcome, Spans};
use crate::store::notify::wakeups::Wakeup;
use crate::store::ops::cancel::Cancelled;
use crate::store::ops::complete::Completion;
use crate::store::ops::delete::{DeleteReason, Deleted};
use crate::store::ops::fail::Failure;
use crate::store::ops::heartbeat::{LeaseExtended, LeaseHeartbeat};
use crate::store::ops::idempotency::{IdempotencyOutcome, IdempotencyRecord};
use crate::store::ops::release::Release;
use crate::store::ops::retry::Retried;
use crate::store::ops::submit::Submitted;
use crate::store::ops::{self, LeaseEnd};
use crate::store::{Caller, Error, Shard, Store, views};

pub use claim::delivery::Delivery;
pub use claim::poll_limit::PollLimit;
pub use claim::waiters::ClaimRequest;
pub use events::ring_buffer::{BufferedEvent, EventData};
pub use events::subscriptions::{Cursor, Subscription};
pub use metrics::{Metrics, WakeupCounts};

use batcher::{Batcher, with_request_timeout};
use claim::delivery::UndeliveredReleaser;
use claim::waiters::Waiters;
use completion_waiters::CompletionWaiters;
use events::subscriptions::Subscriptions;
use task_spans::TaskTracer;
use worker_registry::WorkerRegistry;

/// What comes of a call, or what the store has against it.
type Result<T, E = Error> = std::result::Result<T, E>;

/// Calls of one purge, each of up to 500 tasks.
const MAX_PURGE_CALLS: u32 = 20;

/// The engine of claims, and the gate through which every request that changes something goes.
#[derive(Debug)]
pub struct Dispatch {
    store: Store,
    waiters: Arc<Waiters>,
    worker_registry: Arc<WorkerRegistry>,
    completion_waiters: CompletionWaiters,
    poll_limit: Arc<PollLimit>,
    task_tracer: TaskTracer,
    metrics: Arc<Metrics>,
    subscriptions: Arc<Subscriptions>,
    /// Per shard: signals may have been missed.
    wakeup_gaps: Vec<Notify>,
    submits: Batcher<batched_ops::Submit>,
    completes: Batcher<batched_ops::Complete>,
    fails: Batcher<batched_ops::Fail>,
    heartbeats: Batcher<batched_ops::Heartbeat>,
    releases: Batcher<batched_ops::Release>,
    cancels: Batcher<batched_ops::Cancel>,
    retries: Batcher<batched_ops::Retry>,
    deletes: Batcher<batched_ops::Delete>,
    idempotency_records: Batcher<batched_ops::Remember>,
    completion_watches: Batcher<batched_ops::Watch>,
}

/// Why a request does not get what it waits for.
#[derive(Clone, Debug)]
pub enum Rejection {
    /// As many wait as may.
    TooManyWaiting,
    /// The store.
    Store(Error),
}

impl From<Error> for Rejection {
    fn from(error: Error) -> Self {
        Rejection::Store(error)
    }
}

impl Dispatch {
    /// Starts a pump for each shard, and the sweep: every `sweep`, give or take a third, what hints may have missed is
    /// looked for. At most as many requests wait, and as many events are kept, as `limits` says. What is seen of tasks that
    /// are followed goes to `spans`. All of it ends after `stop`, once what was begun is done.
    pub fn start(
        store: Store,
        poll_interval: Duration,
        limits: &Limits,
        spans: Spans,
        tasks: &TaskTracker,
        stop: &CancellationToken,
    ) -> Arc<Self> {
        let waiters = Arc::new(Waiters::new(store.shards().len()));
        let metrics = Arc::new(Metrics::default());
        let releaser = UndeliveredReleaser::new(&store, &metrics, tasks);
        for shard in store.shards() {
            let (waiters, metrics) = (waiters.clone(), metrics.clone());
            tasks.spawn(claim::claim_loop::run(shard.clone(), waiters, releaser.clone(), metrics, stop.clone()));
        }
        let worker_registry: Arc<WorkerRegistry> = Arc::default();
        tasks.spawn(worker_registry.clone().run(store.first_shard().clone(), waiters.clone(), stop.clone()));
        let dispatch = Arc::new(Dispatch {
            waiters,
            worker_registry,
            completion_waiters: CompletionWaiters::default(),
            poll_limit: PollLimit::new(limits.max_waiting_requests),
            task_tracer: TaskTracer::new(spans, &store),
            metrics,
            subscriptions: Subscriptions::new(&store, limits.max_buffered_events, stop),
            wakeup_gaps: store.shards().iter().map(|_| Notify::new()).collect(),
            submits: Batcher::new(&store, tasks),
            completes: Batcher::new(&store, tasks),
            fails: Batcher::new(&store, tasks),
            heartbeats: Batcher::new(&store, tasks),
            releases: Batcher::new(&store, tasks),
            cancels: Batcher::new(&store, tasks),
            retries: Batcher::new(&store, tasks),
            deletes: Batcher::new(&store, tasks),
            idempotency_records: Batcher::new(&store, tasks),
            completion_watches: Batcher::new(&store, tasks),
            store,
        });
        for shard in dispatch.store.shards() {
            tasks.spawn(dispatch.clone().poll_shard(shard.clone(), poll_interval, stop.clone()));
        }
        tasks.spawn(dispatch.clone().finish_waiters_on_stop(stop.clone()));
        tasks.spawn(dispatch.subscriptions.clone().run());
        dispatch
    }

    /// Looks in the shard where there is something to claim for those who wait, again and again, whatever becomes of
    /// other shards.
    async fn poll_shard(self: Arc<Self>, shard: Shard, interval: Duration, stop: CancellationToken) {
        let Some(wakeup_gap) = self.wakeup_gaps.get(shard.index) else { return };
        let poll_loop = async {
            loop {
                let pause = interval.mul_f64(rand::rng().random_range(0.67..1.33));
                // Woken or not, it is time to look.
                let _ = timeout(pause, wakeup_gap.notified()).await;
                let queues = self.waiters.queues();
                if !queues.is_empty() {
                    self.metrics.counters.polls.inc();
                    match views::queues::ready_queues(&shard, &queues).await {
                        Ok(ready) => self.waiters.apply_poll(shard.index, &queues, ready),
                        Err(error) => tracing::debug!(%error, shard = shard.index, "a sweep failed"),
                    }
                }
                self.completion_waiters.notify_shard(&self.store, shard.index);
            }
        };
        tokio::select! {
            () = poll_loop => {}
            () = stop.cancelled() => {}
        }
    }

    /// At the end, all who wait are answered.
    async fn finish_waiters_on_stop(self: Arc<Self>, stop: CancellationToken) {
        stop.cancelled().await;
        self.waiters.finish_all();
        self.completion_waiters.notify_all();
    }

    /// Takes note of what a script said.
    pub fn on_wakeup(&self, wakeup: &Wakeup) {
        self.metrics.count_wakeup(wakeup);
        match wakeup {
            Wakeup::Ready { shard, priority, queue } => self.waiters.on_wakeup(*shard, queue, *priority),
            Wakeup::Ended(id) => self.completion_waiters.notify(id),
            Wakeup::Due { .. } => {}
            Wakeup::Gap => self.wakeup_gaps.iter().for_each(Notify::notify_one),
        }
    }

    /// Notes that a worker claims, from where, and how many tasks it works at at once.
    pub fn record_claim(&self, request: &ClaimRequest, address: IpAddr, concurrency: u32) {
        self.worker_registry.record_claim(&request.worker, address, concurrency, &request.queues, Instant::now());
    }

    /// Notes that a worker has sent a heartbeat.
    pub fn record_heartbeat(&self, worker: &str, address: IpAddr) {
        self.worker_registry.record_heartbeat(worker, address, Instant::now());
    }

    /// Ready tasks for the request, or none once `wait` has passed. What the delivery holds goes back if it is dropped
    /// before it is taken. When as many wait as may, there is still what is ready at once.
    pub async fn claim(&self, request: ClaimRequest, wait: Duration) -> Result<Delivery, Rejection> {
        let mut delivery = self.wait_for_tasks(request, wait).await?;
        delivery.set_wait_spans(self.task_tracer.wait_spans(delivery.tasks()).await);
        Ok(delivery)
    }

    async fn wait_for_tasks(&self, request: ClaimRequest, wait: Duration) -> Result<Delivery, Rejection> {
        if wait.is_zero() {
            return Ok(with_request_timeout(self.waiters.register(request, false).reply()).await?);
        }
        let Some(_permit) = self.poll_limit.try_acquire() else {
            let delivery = with_request_timeout(self.waiters.register(request, false).reply()).await?;
            return match delivery.tasks().is_empty() {
                false => Ok(delivery),
                true => Err(self.too_many_waiting()),
            };
        };
        let mut wait_handle = self.waiters.register(request, true);
        Ok(match timeout(wait, wait_handle.reply()).await {
            Ok(answer) => answer?,
            // Not before a call that is looking for it has come back.
            Err(_) => with_request_timeout(wait_handle.cancel()).await?,
        })
    }

    /// The same for a request that may be a repetition: what is leased under its claim id already is the answer.
    pub async fn claim_or_resume(&self, request: ClaimRequest, wait: Duration) -> Result<Delivery, Rejection> {
        let Some(claim_digest) = request.claim else { return self.claim(request, wait).await };
        let already_leased = views::claims::claimed(&self.store, &claim_digest).await?;
        if !already_leased.is_empty() {
            return Ok(Delivery::resumed(already_leased));
        }
        let delivery = self.claim(request, wait).await?;
        if !delivery.tasks().is_empty() {
            return Ok(delivery);
        }
        // The earlier one may have been on its way still.
        Ok(Delivery::resumed(views::claims::claimed(&self.store, &claim_digest).await?))
    }

    fn too_many_waiting(&self) -> Rejection {
        self.poll_limit.count_rejection();
        Rejection::TooManyWaiting
    }

    /// Those who wait, counted.
    pub fn poll_limit(&self) -> &PollLimit {
        &self.poll_limit
    }

    /// Stores tasks, in their order.
    pub async fn submit(&self, tasks: Vec<NewTask>) -> Vec<Result<Submitted>> {
        let submit_spans = self.task_tracer.start_submits(&tasks);
        let outcomes = self.submits.send_all(tasks.into_iter().map(|task| (task.id.slot(), task)).collect()).await;
        self.task_tracer.finish_submits(submit_spans, &outcomes);
        outcomes
    }

    /// Ends leases and their tasks, in their order.
    pub async fn complete(&self, completions: Vec<Completion>) -> Vec<Result<LeaseEnd>> {
        let execution_spans =
            self.task_tracer.execution_spans(completions.iter().map(|completion| &completion.held)).await;
        let with_slots = completions.into_iter().map(|completion| (completion.held.id.slot(), completion)).collect();
        let outcomes = self.completes.send_all(with_slots).await;
        self.task_tracer.finish_executions(execution_spans, ExecutionOutcome::Completed, &outcomes);
        outcomes
    }

    /// Ends a lease badly.
    pub async fn fail(&self, failure: Failure) -> Result<LeaseEnd> {
        let execution_spans = self.task_tracer.execution_spans([&failure.held].into_iter()).await;
        let outcome = self.fails.send(failure.held.id.slot(), failure).await;
        self.task_tracer.finish_executions(execution_spans, ExecutionOutcome::Failed, [&outcome]);
        outcome
    }

    /// Prolongs leases.
    pub async fn heartbeat(&self, heartbeats: Vec<LeaseHeartbeat>) -> Vec<Result<LeaseExtended>> {
        self.heartbeats
            .send_all(heartbeats.into_iter().map(|heartbeat| (heartbeat.held.id.slot(), heartbeat)).collect())
            .await
    }

    /// Gives a task back.
    pub async fn release(&self, release: Release) -> Result<LeaseEnd> {
        let execution_spans = self.task_tracer.execution_spans([&release.held].into_iter()).await;
        let outcome = self.releases.send(release.held.id.slot(), release).await;
        self.task_tracer.finish_executions(execution_spans, ExecutionOutcome::Released, [&outcome]);
        outcome
    }

    /// Calls a task off.
    pub async fn cancel(&self, id: TaskId) -> Result<Cancelled> {
        self.cancels.send(id.slot(), id).await
    }

    /// Has an ended task run again.
    pub async fn retry(&self, id: TaskId) -> Result<Retried> {
        self.retries.send(id.slot(), id).await
    }

    /// Forgets an ended task.
    pub async fn delete(&self, id: TaskId) -> Result<Deleted> {
        self.deletes.send(id.slot(), id).await
    }

    /// Opens or closes records of Idempotency-Keys, in their order; each lies in the key's own shard.
    pub async fn update_idempotency_records(&self, records: Vec<IdempotencyRecord>) -> Vec<Result<IdempotencyOutcome>> {
        let with_slots = records.into_iter().map(|record| (batched_ops::slot_of_idempotency_key(&record.key), record));
        self.idempotency_records.send_all(with_slots.collect()).await
    }

    /// Returns when the task has ended or is gone, at the latest after `wait`.
    pub async fn wait_until_ended(&self, id: TaskId, wait: Duration) -> Result<(), Rejection> {
        let Some(_permit) = self.poll_limit.try_acquire() else {
            // One that has ended is not waited for.
            let state = self.completion_watches.send(id.slot(), id).await?;
            return if state.is_none_or(State::has_ended) { Ok(()) } else { Err(self.too_many_waiting()) };
        };
        let subscription = self.completion_waiters.subscribe(id);
        let wait_for_end = timeout(wait, async {
            loop {
                let notified = subscription.notified();
                let state: Option<State> = self.completion_watches.send(id.slot(), id).await?;
                if state.is_none_or(State::has_ended) {
                    return Ok(());
                }
                if self.waiters.is_stopping() {
                    return Ok(());
                }
                notified.await;
            }
        });
        wait_for_end.await.unwrap_or(Ok(()))
    }

    /// Tells what becomes of tasks in `queues` (none: in all), from now on or from `mark` on.
    pub async fn subscribe(&self, queues: Vec<QueueName>, cursor: Option<Cursor>) -> Result<Subscription, Rejection> {
        let permit = self.poll_limit.try_acquire().ok_or_else(|| self.too_many_waiting())?;
        Ok(self.subscriptions.subscribe(permit, queues, cursor).await?)
    }

    /// Does a write that changes no task, as proof that writes work, and sees that no shard is left out by claims.
    pub async fn check_readiness(&self) -> Result<()> {
        if let Some(error) = self.waiters.unavailable_error() {
            return Err(error);
        }
        for shard in self.store.shards() {
            let (first, _) = self.store.layout().slot_range(shard.index);
            if let Some(slot) = Slot::new(first) {
                self.completion_watches.send(slot, TaskId::new(Uuid::nil(), slot)).await?;
            }
        }
        Ok(())
    }

    /// Sets a queue's settings, master copy first. Returns when all shards have theirs; if it does not return,
    /// upkeep brings the copies up.
    pub async fn set_queue_settings(&self, queue: &QueueName, settings: QueueSettings) -> Result<()> {
        with_request_timeout(async {
            let mut caller = Caller::new();
            let version = ops::set_settings::set_settings(&self.store, &mut caller, queue, &settings).await?;
            let mut outcome = Ok(());
            for shard in self.store.shards() {
                let applied = ops::apply_settings::apply_settings(shard, &mut caller, queue, version, &settings).await;
                outcome = outcome.and(applied.map(drop));
            }
            outcome
        })
        .await
    }

    /// Forgets the queue's tasks in these states, at most 10,000: how many, and whether there may be more.
    pub async fn purge(&self, queue: &QueueName, states: &[State]) -> Result<(u64, bool)> {
        let mut caller = Caller::new();
        let reason = DeleteReason::Purge(states.to_vec());
        let (mut deleted, mut calls) = (0, 0);
        for shard in self.store.shards() {
            for state in states {
                loop {
                    let mut ids = views::queues::purgeable(shard, queue, *state, limits::MAX_CALL_ITEMS).await?;
                    // One that moved while its queue was read may stand in it twice.
                    let mut seen = HashSet::new();
                    ids.retain(|id| seen.insert(*id));
                    if ids.is_empty() {
                        break;
                    }
                    if calls == MAX_PURGE_CALLS {
                        return Ok((deleted, true));
                    }
                    calls += 1;
                    let outcomes = ops::delete::delete(shard, &mut caller, &reason, &ids).await?;
                    let deleted_now = outcomes.iter().filter(|outcome| **outcome == Deleted::Now).count();
                    deleted += deleted_now as u64;
                    if deleted_now == 0 {
                        break;
                    }
                }
            }
        }
        Ok((deleted, false))
    }

    /// The store, for reading.
    pub fn store(&self) -> &Store {
        &self.store
    }

    /// The shard that holds the task.
    pub fn shard_of(&self, id: &TaskId) -> &Shard {
        self.store.shard_for_task(id)
    }

    /// The digest under which a claim id, a caller's or a completed lease's, is kept.
    pub fn claim_digest(kind: &str, id: &[u8]) -> Digest {
        Digest::of(&[b"claim", kind.as_bytes(), id])
    }
}
