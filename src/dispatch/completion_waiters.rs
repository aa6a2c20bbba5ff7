//! Requests that wait for the end of a task.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::Notify;
use tokio::sync::futures::OwnedNotified;
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;

use super::batched_ops::BatchedOps;
use super::claim::poll_limit::{PollLimit, Rejection};
use crate::domain::id::TaskId;
use crate::domain::state::State;
use crate::store::Store;

/// The subscriptions to the ends of tasks.
#[derive(Clone, Debug)]
pub(super) struct CompletionWaiters {
    by_task: Arc<Mutex<WaitersByTask>>,
    stop: CancellationToken,
}

/// By task: the number of its subscriptions, and their notifier.
type WaitersByTask = HashMap<TaskId, (usize, Arc<Notify>)>;

/// A subscription to the end of one task. Dropping it cancels it.
#[derive(Debug)]
struct CompletionSubscription {
    waiters: CompletionWaiters,
    id: TaskId,
    notify: Arc<Notify>,
}

impl CompletionWaiters {
    /// No subscriptions. Waits end early after `stop` and [`CompletionWaiters::notify_all`].
    pub(super) fn new(stop: &CancellationToken) -> Self {
        CompletionWaiters { by_task: Arc::default(), stop: stop.clone() }
    }

    fn lock(&self) -> MutexGuard<'_, WaitersByTask> {
        self.by_task.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn subscribe(&self, id: TaskId) -> CompletionSubscription {
        let mut by_task = self.lock();
        let (count, notify) = by_task.entry(id).or_default();
        *count += 1;
        CompletionSubscription { waiters: self.clone(), id, notify: notify.clone() }
    }

    /// Returns once the task has ended or is missing, and after `max_wait` at the latest. At the limit of waiting
    /// requests, it checks the task once.
    pub(super) async fn wait_until_ended(
        &self,
        id: TaskId,
        max_wait: Duration,
        ops: &BatchedOps,
        poll_limit: &Arc<PollLimit>,
    ) -> Result<(), Rejection> {
        let Some(_permit) = poll_limit.try_acquire() else {
            let state = ops.subscribe_completion.send(id).await?;
            return if state.is_none_or(State::has_ended) { Ok(()) } else { Err(poll_limit.reject()) };
        };
        let subscription = self.subscribe(id);
        let wait_for_end = timeout(max_wait, async {
            loop {
                // Subscribed before the check: an end after the check is not missed.
                let notified = subscription.notified();
                let state: Option<State> = ops.subscribe_completion.send(id).await?;
                if state.is_none_or(State::has_ended) || self.stop.is_cancelled() {
                    return Ok(());
                }
                notified.await;
            }
        });
        wait_for_end.await.unwrap_or(Ok(()))
    }

    /// Notifies the subscriptions to a task, which has ended.
    pub(super) fn notify(&self, id: &TaskId) {
        if let Some((_, notify)) = self.lock().get(id) {
            notify.notify_waiters();
        }
    }

    /// Has the subscriptions to tasks of a shard check their tasks, in case a wake-up was lost.
    pub(super) fn notify_shard(&self, store: &Store, shard: usize) {
        for (id, (_, notify)) in self.lock().iter() {
            if store.layout().shard_of(id.slot()) == shard {
                notify.notify_waiters();
            }
        }
    }

    /// Has all subscriptions check their tasks.
    pub(super) fn notify_all(&self) {
        for (_, notify) in self.lock().values() {
            notify.notify_waiters();
        }
    }
}

impl CompletionSubscription {
    /// Completes with the next notification from now on, even if it is not polled before.
    fn notified(&self) -> OwnedNotified {
        self.notify.clone().notified_owned()
    }
}

impl Drop for CompletionSubscription {
    fn drop(&mut self) {
        let mut by_task = self.waiters.lock();
        if let Some((count, _)) = by_task.get_mut(&self.id) {
            *count -= 1;
            if *count == 0 {
                by_task.remove(&self.id);
            }
        }
    }
}
