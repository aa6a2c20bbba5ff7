//! Those who wait for a task's end.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::Notify;
use tokio::sync::futures::OwnedNotified;

use crate::domain::id::TaskId;
use crate::store::Store;

/// Who waits for what.
#[derive(Clone, Debug, Default)]
pub(super) struct CompletionWaiters(Arc<Mutex<WaitersByTask>>);

/// How many wait for a task's end, and what wakes them.
type WaitersByTask = HashMap<TaskId, (usize, Arc<Notify>)>;

/// A place among those who wait for one task's end; given up when it is dropped.
#[derive(Debug)]
pub(super) struct CompletionSubscription {
    waiters: CompletionWaiters,
    id: TaskId,
    notify: Arc<Notify>,
}

impl CompletionWaiters {
    fn lock(&self) -> MutexGuard<'_, WaitersByTask> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Register first, then look, then wait.
    pub(super) fn subscribe(&self, id: TaskId) -> CompletionSubscription {
        let mut by_task = self.lock();
        let (count, notify) = by_task.entry(id).or_default();
        *count += 1;
        CompletionSubscription { waiters: self.clone(), id, notify: notify.clone() }
    }

    /// The task has ended.
    pub(super) fn notify(&self, id: &TaskId) {
        if let Some((_, notify)) = self.lock().get(id) {
            notify.notify_waiters();
        }
    }

    /// Tasks of this shard may have ended unheard: those who wait for one look again.
    pub(super) fn notify_shard(&self, store: &Store, shard: usize) {
        for (id, (_, notify)) in self.lock().iter() {
            if store.layout().shard_of(id.slot()) == shard {
                notify.notify_waiters();
            }
        }
    }

    /// All look again.
    pub(super) fn notify_all(&self) {
        for (_, notify) in self.lock().values() {
            notify.notify_waiters();
        }
    }
}

impl CompletionSubscription {
    /// Ends with the next waking from now on, whether or not it is polled before.
    pub(super) fn notified(&self) -> OwnedNotified {
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
