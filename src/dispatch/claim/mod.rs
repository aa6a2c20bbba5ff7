//! The claim engine: waiting claims, the claim loop of each shard, hand-offs by submits, and the delivery of tasks.
//!
//! Waiting costs no connection to Redis: waiters are kept in memory, and one claim loop per shard calls Redis for many
//! of them at once. A claim runs in that loop, never in the future of a request, which a disconnect may drop. Tasks
//! claimed for a client that has disconnected are released.

mod announcements;
mod claim_loop;
pub(super) mod delivery;
pub(super) mod following;
mod hand_off;
mod next_call;
mod offers;
mod parts;
pub(super) mod poll_limit;
mod ready_cache;
#[cfg(test)]
mod ready_cache_model;
mod shard_set;
mod sharing;
mod survey;
pub(super) mod wait_handle;
mod wait_queue;
pub(super) mod waiter;
pub(super) mod waiters;

use std::sync::Arc;
use std::time::Duration;

use tokio::time::{Instant, timeout_at};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::batcher::{Batcher, with_request_timeout};
use super::metrics::Metrics;
use super::task_spans::TaskTracer;
use crate::background;
use crate::domain::claim_id::ClaimId;
use crate::domain::queue::QueueName;
use crate::domain::state::State;
use crate::domain::task::{ClaimedTask, NewTask};
use crate::metrics::HistogramSnapshot;
use crate::spans::ExecutionOutcome;
use crate::store::ops::LeaseEnd;
use crate::store::ops::complete::Completion;
use crate::store::ops::submit::Submitted;
use crate::store::views::claims::{CompletedLease, claimed, leased_with};
use crate::store::{self, Error, Shard, Store};
use delivery::{Delivery, UndeliveredReleaser};
use following::{Complete, CompleteRequest, NextClaim, NextTasks};
use hand_off::{HandOffs, Stored, Submit};
use poll_limit::{PollLimit, Rejection};
use survey::Surveyor;
use waiter::ClaimRequest;
use waiters::Waiters;

/// Claims tasks for waiting requests.
#[derive(Debug)]
pub(super) struct ClaimEngine {
    store: Store,
    waiters: Arc<Waiters>,
    surveyor: Surveyor,
    submits: Batcher<Submit>,
    completions: Batcher<Complete>,
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
        let announce = announcements::run(store.first_shard().clone(), waiters.clone(), stop.clone());
        background::spawn(tasks, "announcements", announce);
        let hand_offs = HandOffs::new(&waiters, &releaser, metrics, tasks, stop);
        ClaimEngine {
            store: store.clone(),
            surveyor: Surveyor::start(store, &waiters, tasks),
            submits: Batcher::new(store, hand_offs.clone(), tasks, stop),
            completions: Batcher::new(store, hand_offs, tasks, stop),
            waiters,
            poll_limit: poll_limit.clone(),
            task_tracer: task_tracer.clone(),
            metrics: metrics.clone(),
        }
    }

    /// Returns tasks for the request, or none after `max_wait`. At the limit of waiting requests, it returns the tasks
    /// that are ready now, or a rejection.
    pub(super) async fn claim(&self, request: ClaimRequest, max_wait: Duration) -> Result<Delivery, Rejection> {
        self.claim_next(request, max_wait, NextTasks::default()).await
    }

    /// The same for a claim that follows a completion, whose call may have claimed the tasks.
    pub(super) async fn claim_next(
        &self,
        request: ClaimRequest,
        max_wait: Duration,
        next: NextTasks,
    ) -> Result<Delivery, Rejection> {
        let mut delivery = match next.is_empty() {
            true => self.wait_for_tasks(request, max_wait, next.checked).await?,
            false => next.delivery,
        };
        delivery.set_wait_spans(self.task_tracer.wait_spans(delivery.tasks()).await);
        Ok(delivery)
    }

    /// The same for a request that may be a retry: tasks leased under its claim id are the result, and if it follows a
    /// repeated completion, those that the completed task keeps.
    pub(super) async fn claim_or_resume(
        &self,
        request: ClaimRequest,
        max_wait: Duration,
        next: NextTasks,
        completed: Option<&CompletedLease>,
    ) -> Result<Delivery, Rejection> {
        let Some(claim_id) = request.claim_id else { return self.claim_next(request, max_wait, next).await };
        let mut already_leased = self.leased_under(&claim_id).await?;
        // If others of its batch are repetitions, this one is not.
        if let Some(completed) = completed.filter(|_| next.is_empty()) {
            already_leased.extend(leased_with(&self.store, completed).await?);
        }
        if !already_leased.is_empty() {
            return Ok(Delivery::resumed(already_leased));
        }
        let delivery = self.claim_next(request, max_wait, next).await?;
        if !delivery.tasks().is_empty() {
            return Ok(delivery);
        }
        // The first request may have been in flight at the first check.
        Ok(Delivery::resumed(self.leased_under(&claim_id).await?))
    }

    async fn leased_under(&self, claim_id: &ClaimId) -> Result<Vec<ClaimedTask>, Rejection> {
        claimed(&self.store, claim_id).await?.ok_or(Rejection::ClaimIdMismatch)
    }

    /// `checked` is a shard that was just checked.
    async fn wait_for_tasks(
        &self,
        request: ClaimRequest,
        max_wait: Duration,
        checked: Option<usize>,
    ) -> Result<Delivery, Rejection> {
        if max_wait.is_zero() {
            return Ok(self.claim_now(request, checked).await?);
        }
        let Some(_permit) = self.poll_limit.try_acquire() else {
            let delivery = self.claim_now(request, checked).await?;
            return match delivery.tasks().is_empty() {
                false => Ok(delivery),
                true => Err(self.poll_limit.reject()),
            };
        };
        let deadline = Instant::now() + max_wait;
        let mut wait_handle = self.surveyor.register(request, true, None).await;
        Ok(match timeout_at(deadline, wait_handle.reply()).await {
            Ok(reply) => reply?,
            // A call that includes the waiter may still bring tasks.
            Err(_) => with_request_timeout(wait_handle.cancel()).await?,
        })
    }

    /// Checks every shard once, except `checked`.
    async fn claim_now(&self, request: ClaimRequest, checked: Option<usize>) -> store::Result<Delivery> {
        let mut wait_handle = self.surveyor.register(request, false, checked).await;
        with_request_timeout(wait_handle.reply()).await
    }

    /// Looks up in Redis which queues have ready tasks in the shard, in case a wake-up was lost: queues that have waiters,
    /// or had some lately.
    pub(super) async fn poll_shard(&self, shard: &Shard) {
        let queues = self.waiters.queues_to_poll();
        if queues.is_empty() {
            return;
        }
        self.metrics.counters.polls.inc();
        match survey::read_shard(shard, &self.waiters, queues).await {
            Ok(()) => self.waiters.trigger([shard.index]),
            Err(error) => {
                self.waiters.invalidate(shard.index);
                tracing::debug!(%error, shard = shard.index, "polling for ready tasks failed");
            }
        }
    }

    /// Stores tasks, or hands them over to resting waiters. Returns each with its outcome, in order.
    pub(super) async fn submit(&self, tasks: Vec<NewTask>) -> Vec<store::Result<(NewTask, Submitted)>> {
        let sent_at = self.waiters.epoch();
        let replies = self.submits.send_all(tasks).await;
        let mut submitted = Vec::with_capacity(replies.len());
        for reply in replies {
            submitted.push(reply.map(|Stored { task, outcome, is_handed_over }| {
                // Recorded before the submit is answered.
                if let (Submitted::Created { state: State::Ready, .. }, false) = (outcome, is_handed_over) {
                    let shard = self.store.shard_for_slot(task.slot).index;
                    self.waiters.record_submit(shard, &task.queue, task.priority, sent_at);
                }
                (task, outcome)
            }));
        }
        submitted
    }

    /// Completes tasks, in order, and claims for the request that follows the last, if all of them are in one shard.
    pub(super) async fn complete(
        &self,
        completions: Vec<Completion>,
        next: Option<NextClaim>,
    ) -> (Vec<store::Result<LeaseEnd>>, NextTasks) {
        let shard_of = |completion: &Completion| self.store.shard_for_task(&completion.lease_ref.id).index;
        let mut shards = completions.iter().map(shard_of);
        let first = shards.next();
        let is_in_one_shard = shards.all(|shard| Some(shard) == first);
        let mut requests: Vec<CompleteRequest> =
            completions.into_iter().map(|completion| CompleteRequest { completion, next: None }).collect();
        if let Some(last) = requests.last_mut().filter(|_| is_in_one_shard) {
            last.next = next.map(Box::new);
        }
        let replies = self.task_tracer.trace_reports(requests, ExecutionOutcome::Completed, &self.completions).await;
        let mut next = NextTasks::default();
        let ends = replies.into_iter().map(|reply| {
            reply.map(|completed| {
                next = completed.next;
                completed.end
            })
        });
        (ends.collect(), next)
    }

    /// Items per call, by operation.
    pub(super) fn batch_items(&self) -> [(&'static str, HistogramSnapshot); 2] {
        [("complete", self.completions.batch_items()), ("submit", self.submits.batch_items())]
    }

    /// Handles a wake-up: the queue has a ready task of this priority.
    pub(super) fn on_wakeup(&self, shard: usize, queue: &QueueName, priority: u8) {
        self.waiters.on_wakeup(shard, queue, priority);
    }

    /// Handles an announcement: the server has these waiters.
    pub(super) fn on_announcement(&self, server: u64, waiters: &[(QueueName, usize)]) {
        self.waiters.on_announcement(server, waiters);
    }

    /// Wake-ups may be lost from now on.
    pub(super) fn interrupt(&self) {
        self.waiters.interrupt();
    }

    /// The wake-ups of these shards arrive from now on.
    pub(super) fn resume(&self, shards: &[usize]) {
        self.waiters.resume(shards);
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
