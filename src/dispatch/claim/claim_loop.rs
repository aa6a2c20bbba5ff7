//! One per shard: looks in it for those who wait, as long as there is anybody to serve. Its calls never overlap.

use std::sync::Arc;
use std::time::Duration;

use tokio::task::yield_now;
use tokio_util::sync::CancellationToken;

use super::delivery::{Delivery, UndeliveredReleaser};
use super::waiters::{ClaimBatch, Waiters};
use crate::dispatch::metrics::Metrics;
use crate::store::ops::claim::{ClaimCall, ClaimReply};
use crate::store::ops::expire_tasks::expire_tasks;
use crate::store::{Caller, Shard};

/// How long a call whose outcome is not known rests before it is sent again.
const RETRY_DELAY: Duration = Duration::from_millis(200);

/// Ends after `stop`.
pub(in crate::dispatch) async fn run(
    shard: Shard,
    waiters: Arc<Waiters>,
    releaser: Arc<UndeliveredReleaser>,
    metrics: Arc<Metrics>,
    stop: CancellationToken,
) {
    let mut caller = Caller::new();
    loop {
        // Who can come into the line without waiting is looked for in the same call.
        yield_now().await;
        let Some(batch) = waiters.take_batch(shard.index) else {
            tokio::select! {
                () = waiters.triggered(shard.index) => continue,
                () = stop.cancelled() => return,
            }
        };
        // A claim that is not sent need not be resolved later. The shard's pulse finds out when it is back.
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
        let claim = ClaimCall::new(&shard, &mut caller, &batch.queues, &batch.requests);
        match claim.send().await {
            Ok(reply) => {
                let expired = reply.passed_expired;
                metrics.histograms.claim_call_tasks.observe(reply.tasks.len());
                let served = deliver_reply(shard.index, &waiters, &releaser, &batch, reply);
                metrics.histograms.delivery_duration.observe_durations(batch.triggered_at.elapsed(), served);
                if expired && let Err(error) = expire_tasks(&shard, &mut caller).await {
                    tracing::debug!(%error, "expired tasks are left to upkeep");
                }
            }
            Err(error) => {
                waiters.fail_batch(shard.index, &batch, &error);
                if error.is_outage() {
                    if resend_until_answered(&claim, &releaser, &stop).await.is_none() {
                        return;
                    }
                    waiters.mark_available(shard.index);
                }
            }
        }
    }
}

/// Returns how many were served.
fn deliver_reply(
    shard: usize,
    waiters: &Waiters,
    releaser: &Arc<UndeliveredReleaser>,
    batch: &ClaimBatch,
    reply: ClaimReply,
) -> usize {
    let mut tasks_by_waiter: Vec<Vec<_>> = batch.requests.iter().map(|_| Vec::new()).collect();
    for (index, task) in reply.tasks {
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
    waiters.return_batch(shard, batch, &reply.fronts, reply.more);
    served_count
}

/// Sends a call that may have run until it is answered, and gives back what it got: those who wanted it were told that
/// there is nothing. `None`: the server stops first, and leases that nobody knows of run out.
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
                tracing::error!(%error, "a claim could not be resolved");
                return Some(());
            }
        }
    }
}
