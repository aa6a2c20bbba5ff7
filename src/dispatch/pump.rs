//! One per shard: looks in it for those who wait, as long as there is anybody to serve. Its calls never overlap.

use std::sync::Arc;
use std::time::Duration;

use tokio::task::yield_now;
use tokio_util::sync::CancellationToken;

use super::delivery::{Delivery, GiveBack};
use super::meters::Meters;
use super::waiters::{Batch, Waiters};
use crate::store::ops::claim::{Claim, Handed};
use crate::store::ops::expire::expire;
use crate::store::{Caller, Shard};

/// How long a call whose outcome is not known rests before it is sent again.
const PAUSE: Duration = Duration::from_millis(200);

/// Ends after `stop`.
pub(super) async fn run(
    shard: Shard,
    waiters: Arc<Waiters>,
    give_back: Arc<GiveBack>,
    meters: Arc<Meters>,
    stop: CancellationToken,
) {
    let mut caller = Caller::new();
    loop {
        // Who can come into the line without waiting is looked for in the same call.
        yield_now().await;
        let Some(batch) = waiters.pull(shard.index) else {
            tokio::select! {
                () = waiters.news(shard.index) => continue,
                () = stop.cancelled() => return,
            }
        };
        // A claim that is not sent need not be resolved later. The shard's pulse finds out when it is back.
        if let Err(error) = shard.gate.check() {
            waiters.fail(shard.index, &batch, &error);
            while shard.gate.check().is_err() {
                tokio::select! {
                    () = tokio::time::sleep(PAUSE) => {}
                    () = stop.cancelled() => return,
                }
            }
            waiters.up(shard.index);
            continue;
        }
        meters.looked_for(batch.ids.len());
        let claim = Claim::new(&shard, &mut caller, &batch.queues, &batch.wants);
        match claim.send().await {
            Ok(handed) => {
                let expired = handed.expired;
                meters.brought(handed.tasks.len());
                let served = serve(shard.index, &waiters, &give_back, &batch, handed);
                meters.handed_out(served, batch.since.elapsed());
                if expired && let Err(error) = expire(&shard, &mut caller).await {
                    tracing::debug!(%error, "expired tasks are left to upkeep");
                }
            }
            Err(error) => {
                waiters.fail(shard.index, &batch, &error);
                if error.is_outage() {
                    if resolve(&claim, &give_back, &stop).await.is_none() {
                        return;
                    }
                    waiters.up(shard.index);
                }
            }
        }
    }
}

/// Returns how many were served.
fn serve(shard: usize, waiters: &Waiters, give_back: &Arc<GiveBack>, batch: &Batch, handed: Handed) -> usize {
    let mut served: Vec<Vec<_>> = batch.wants.iter().map(|_| Vec::new()).collect();
    for (place, task) in handed.tasks {
        if let Some(tasks) = served.get_mut(place) {
            tasks.push(task);
        }
    }
    let mut number = 0;
    for (id, tasks) in batch.ids.iter().zip(served) {
        if !tasks.is_empty() {
            number += 1;
            waiters.serve(*id, Delivery::new(tasks, give_back));
        }
    }
    waiters.put_back(shard, batch, &handed.fronts, handed.more);
    number
}

/// Sends a call that may have run until it is answered, and gives back what it got: those who wanted it were told that
/// there is nothing. `None`: the server stops first, and leases that nobody knows of run out.
async fn resolve(claim: &Claim<'_>, give_back: &Arc<GiveBack>, stop: &CancellationToken) -> Option<()> {
    loop {
        tokio::select! {
            () = tokio::time::sleep(PAUSE) => {}
            () = stop.cancelled() => return None,
        }
        match claim.send().await {
            Ok(handed) => {
                drop(Delivery::new(handed.tasks.into_iter().map(|(_, task)| task).collect(), give_back));
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
