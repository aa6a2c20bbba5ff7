//! Those who wait for a task's end.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::Notify;
use tokio::sync::futures::OwnedNotified;

use crate::domain::id::TaskId;
use crate::store::Store;

/// Who waits for what.
#[derive(Clone, Debug, Default)]
pub(super) struct Ends(Arc<Mutex<Waiting>>);

/// How many wait for a task's end, and what wakes them.
type Waiting = HashMap<TaskId, (usize, Arc<Notify>)>;

/// A place among those who wait for one task's end; given up when it is dropped.
#[derive(Debug)]
pub(super) struct Wakeup {
    ends: Ends,
    id: TaskId,
    notify: Arc<Notify>,
}

impl Ends {
    fn lock(&self) -> MutexGuard<'_, Waiting> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Register first, then look, then wait.
    pub(super) fn register(&self, id: TaskId) -> Wakeup {
        let mut waiting = self.lock();
        let (count, notify) = waiting.entry(id).or_default();
        *count += 1;
        Wakeup { ends: self.clone(), id, notify: notify.clone() }
    }

    /// The task has ended.
    pub(super) fn wake(&self, id: &TaskId) {
        if let Some((_, notify)) = self.lock().get(id) {
            notify.notify_waiters();
        }
    }

    /// Tasks of this shard may have ended unheard: those who wait for one look again.
    pub(super) fn wake_in(&self, store: &Store, shard: usize) {
        for (id, (_, notify)) in self.lock().iter() {
            if store.layout().of(id.slot()) == shard {
                notify.notify_waiters();
            }
        }
    }

    /// All look again.
    pub(super) fn wake_all(&self) {
        for (_, notify) in self.lock().values() {
            notify.notify_waiters();
        }
    }
}

impl Wakeup {
    /// Ends with the next waking from now on, whether or not it is polled before.
    pub(super) fn news(&self) -> OwnedNotified {
        self.notify.clone().notified_owned()
    }
}

impl Drop for Wakeup {
    fn drop(&mut self) {
        let mut waiting = self.ends.lock();
        if let Some((count, _)) = waiting.get_mut(&self.id) {
            *count -= 1;
            if *count == 0 {
                waiting.remove(&self.id);
            }
        }
    }
}
