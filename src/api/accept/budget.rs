//! The memory that request bodies may take in this process, however many come at once.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

/// So many bytes for all.
#[derive(Debug)]
pub(in crate::api) struct Budget {
    total: usize,
    held: AtomicUsize,
}

/// What one body holds of it; given back when it is dropped.
#[derive(Debug)]
pub(in crate::api) struct Share {
    budget: Arc<Budget>,
    bytes: usize,
}

impl Budget {
    pub(super) fn new(total: usize) -> Arc<Self> {
        Arc::new(Budget { total, held: AtomicUsize::new(0) })
    }

    /// A share for a body that says it has `bytes`, if there is room. What has not come holds nothing, so that a few
    /// who promise much and send nothing do not keep others out.
    pub(in crate::api) fn share(self: &Arc<Self>, bytes: usize) -> Option<Share> {
        let room = self.held().checked_add(bytes).is_some_and(|all| all <= self.total);
        room.then(|| Share { budget: self.clone(), bytes: 0 })
    }

    pub(super) fn held(&self) -> usize {
        self.held.load(Ordering::Relaxed)
    }
}

impl Share {
    /// One that holds nothing of any server's.
    #[cfg(any(test, fuzzing, feature = "pieces"))]
    pub(in crate::api) fn free() -> Self {
        Share { budget: Budget::new(0), bytes: 0 }
    }

    /// Takes `bytes` more; whether there was room.
    pub(in crate::api) fn grow(&mut self, bytes: usize) -> bool {
        let more = |held: usize| held.checked_add(bytes).filter(|held| *held <= self.budget.total);
        let grown = self.budget.held.fetch_update(Ordering::Relaxed, Ordering::Relaxed, more).is_ok();
        if grown {
            self.bytes += bytes;
        }
        grown
    }
}

impl Drop for Share {
    fn drop(&mut self) {
        self.budget.held.fetch_sub(self.bytes, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_held_is_bounded_and_comes_back() {
        let budget = Budget::new(10);
        let (mut one, mut other) = (budget.share(8).unwrap(), budget.share(8).unwrap());
        assert!(one.grow(8) && !other.grow(3) && other.grow(2));
        assert!(budget.share(1).is_none() && budget.share(0).is_some());
        drop(one);
        assert!(other.grow(8));
        drop(other);
        assert_eq!(budget.held(), 0);
    }
}
