//! The claim loop, one per shard: claims tasks for waiters as long as there are any. Its calls never overlap.

use std::sync::Arc;
use std::time::Duration;

use tokio::task::yield_now;
use tokio_util::sync::CancellationToken;

use super::delivery::{Delivery, UndeliveredReleaser};
use super::parts::Parts;
use super::waiters::{ClaimBatch, Waiters};
use crate::dispatch::metrics::Metrics;
use crate::domain::task::ClaimedTask;
use crate::store::ops::claim::ClaimCall;
use crate::store::ops::expire_tasks::expire_tasks;
use crate::store::{Caller, Error, Shard};

/// Pause before a call of unknown outcome is sent again, and between checks of an open circuit breaker.
const RETRY_DELAY: Duration = Duration::from_millis(200);

/// Expired tasks that are ended after a call that passed over some: few, because waiters of other queues wait meanwhile.
const MAX_EXPIRED: usize = 100;

/// Runs until `stop`.
pub(super) async fn run(
    shard: Shard,
    waiters: Arc<Waiters>,
    releaser: Arc<UndeliveredReleaser>,
    metrics: Arc<Metrics>,
    stop: CancellationToken,
) {
    let mut caller = Caller::new();
    'batches: loop {
        // Claims that this process can read without waiting join the same call.
        yield_now().await;
        let Some(batch) = waiters.take_batch(shard.index) else {
            tokio::select! {
                () = waiters.triggered(shard.index) => continue,
                () = stop.cancelled() => return,
            }
        };
        // A claim that was never sent has no outcome to resolve. The dataset heartbeat closes the breaker again.
        if let Err(error) = shard.breaker.check() {
            waiters.fail_batch(shard.index, &batch, &error);
            while shard.breaker.check().is_err() {
                tokio::select! {
                    () = tokio::time::sleep(RETRY_DELAY) => {}
                    () = stop.cancelled() => return,
                }
            }
            waiters.mark_available(shard.index);
            continue;
        }
        metrics.histograms.claim_call_waiters.observe(batch.ids.len());
        let mut parts = Parts::new(&shard, &batch);
        while let Some(part) = parts.next() {
            let claim = ClaimCall::new(&shard, &mut caller, &part.queues, &part.requests);
            match claim.send().await {
                Ok(reply) => {
                    metrics.histograms.claim_call_tasks.observe(reply.tasks.len());
                    parts.add_reply(&part, reply);
                }
                Err(error @ Error::Unexpected(_)) => {
                    drop(claim);
                    parts.divide(part, error).await;
                }
                Err(error) => {
                    deliver_tasks(&waiters, &releaser, &batch, parts.reply.tasks);
                    waiters.fail_batch(shard.index, &batch, &error);
                    if error.is_outage() {
                        if resend_until_answered(&claim, &releaser, &stop).await.is_none() {
                            return;
                        }
                        waiters.mark_available(shard.index);
                    }
                    continue 'batches;
                }
            }
        }
        let Parts { reply, failed, .. } = parts;
        let served_count = deliver_tasks(&waiters, &releaser, &batch, reply.tasks);
        waiters.return_batch(shard.index, &batch, &reply.fronts, reply.has_more, &failed);
        metrics.histograms.delivery_duration.observe_durations(batch.triggered_at.elapsed(), served_count);
        if reply.has_passed_expired
            && let Err(error) = expire_tasks(&shard, &mut caller, MAX_EXPIRED).await
        {
            tracing::debug!(%error, shard = shard.index, "expiring tasks failed; upkeep does it later");
        }
    }
}

/// Delivers the tasks of a batch, with the indexes of their waiters. Returns the number of waiters served.
fn deliver_tasks(
    waiters: &Waiters,
    releaser: &Arc<UndeliveredReleaser>,
    batch: &ClaimBatch,
    claimed: Vec<(usize, ClaimedTask)>,
) -> usize {
    let mut tasks_by_waiter: Vec<Vec<_>> = batch.requests.iter().map(|_| Vec::new()).collect();
    for (index, task) in claimed {
        if let Some(tasks) = tasks_by_waiter.get_mut(index) {
            tasks.push(task);
        }
    }
    let mut served_count = 0;
    for (id, tasks) in batch.ids.iter().zip(tasks_by_waiter) {
        if !tasks.is_empty() {
            served_count += 1;
            waiters.deliver(*id, Delivery::new(tasks, releaser));
        }
    }
    served_count
}

/// Sends a call of unknown outcome until Redis answers it, and releases the tasks it claimed: their waiters have ended.
/// Returns `None` if the server stops first. The leases of such a call expire.
async fn resend_until_answered(
    claim: &ClaimCall<'_>,
    releaser: &Arc<UndeliveredReleaser>,
    stop: &CancellationToken,
) -> Option<()> {
    loop {
        tokio::select! {
            () = tokio::time::sleep(RETRY_DELAY) => {}
            () = stop.cancelled() => return None,
        }
        match claim.send().await {
            Ok(reply) => {
                drop(Delivery::new(reply.tasks.into_iter().map(|(_, task)| task).collect(), releaser));
                return Some(());
            }
            Err(error) if error.is_outage() => {}
            Err(error) => {
                tracing::error!(%error, "resolving a claim of unknown outcome failed");
                return Some(());
            }
        }
    }
}
