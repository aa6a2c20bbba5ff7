//! The survey of a new waiter: reads in all shards at once where its queues have ready tasks, before it claims in any.
//!
//! So its first task comes from the first of its queues that has ready tasks in any shard, and there from the shard with
//! the highest priority. A shard that does not answer in time is checked by a claim call instead. With one shard, the
//! claim call itself finds the best task, and there is no survey.

use std::sync::Arc;
use std::time::Duration;

use futures_util::StreamExt as _;
use futures_util::stream::FuturesUnordered;
use tokio::time::{Instant, timeout_at};

use super::waiter::ClaimRequest;
use super::waiters::{SurveyedShard, WaitHandle, Waiters};
use crate::domain::queue::QueueName;
use crate::store::views::queues::ready_queues;
use crate::store::{Shard, Store};

/// The time limit of a survey. A claim does not wait for a shard that hangs.
const SURVEY_TIMEOUT: Duration = Duration::from_millis(100);

/// Adds a waiter, and surveys the shards for it.
pub(super) async fn register(
    waiters: &Arc<Waiters>,
    store: &Store,
    request: ClaimRequest,
    is_long_poll: bool,
) -> WaitHandle {
    if let [_] = store.shards() {
        return waiters.register(request, is_long_poll);
    }
    let queues = request.queues.clone();
    let (wait_handle, mut survey) = waiters.register_surveyed(request, is_long_poll);
    let deadline = Instant::now() + SURVEY_TIMEOUT;
    let mut readings: FuturesUnordered<_> = store.shards().iter().map(|shard| read(waiters, shard, &queues)).collect();
    while let Ok(Some(reading)) = timeout_at(deadline, readings.next()).await {
        survey.found.extend(reading);
    }
    wait_handle
}

/// Returns `None` if the shard cannot be read.
async fn read(waiters: &Waiters, shard: &Shard, queues: &[QueueName]) -> Option<SurveyedShard> {
    let sent_at = waiters.epoch();
    match ready_queues(shard, queues).await {
        Ok(ready) => Some(SurveyedShard { shard: shard.index, sent_at, ready }),
        Err(error) => {
            tracing::debug!(%error, shard = shard.index, "surveying ready tasks failed");
            None
        }
    }
}
