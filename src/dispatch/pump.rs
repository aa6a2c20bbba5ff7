//! One per shard: looks in it for those who wait, as long as there is anybody to serve. Its calls never overlap.

use std::sync::Arc;

use tokio_util::sync::CancellationToken;

use super::delivery::{Delivery, GiveBack};
use super::waiters::{Batch, Waiters};
use crate::store::ops::claim::claim;
use crate::store::ops::expire::expire;
use crate::store::{Caller, Shard};

/// Ends after `stop`.
pub(super) async fn run(shard: Shard, waiters: Arc<Waiters>, give_back: Arc<GiveBack>, stop: CancellationToken) {
    let mut caller = Caller::new();
    loop {
        let Some(batch) = waiters.pull(shard.index) else {
            tokio::select! {
                () = waiters.news(shard.index) => continue,
                () = stop.cancelled() => return,
            }
        };
        serve(&shard, &mut caller, &waiters, &give_back, batch).await;
    }
}

async fn serve(shard: &Shard, caller: &mut Caller, waiters: &Waiters, give_back: &Arc<GiveBack>, batch: Batch) {
    match claim(shard, caller, &batch.queues, &batch.wants).await {
        Ok(handed) => {
            let mut served: Vec<Vec<_>> = batch.wants.iter().map(|_| Vec::new()).collect();
            for (place, task) in handed.tasks {
                if let Some(tasks) = served.get_mut(place) {
                    tasks.push(task);
                }
            }
            for (id, tasks) in batch.ids.iter().zip(served) {
                if !tasks.is_empty() {
                    waiters.serve(*id, Delivery::new(tasks, give_back));
                }
            }
            waiters.put_back(shard.index, &batch, &handed.fronts, handed.more);
            if handed.expired
                && let Err(error) = expire(shard, caller).await
            {
                tracing::debug!(%error, "expired tasks are left to upkeep");
            }
        }
        Err(error) => waiters.fail(shard.index, &batch, &error),
    }
}
