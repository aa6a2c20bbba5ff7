//! How many requests wait, and how many may: each holds a connection, memory, and a place in line.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};

/// Places for those who wait.
#[derive(Debug)]
pub struct PollLimit {
    max_waiting: usize,
    waiting: AtomicUsize,
    rejected: AtomicU64,
}

/// A place; given up when it is dropped, however the wait ended.
#[derive(Debug)]
pub(in crate::dispatch) struct PollPermit(Arc<PollLimit>);

impl PollLimit {
    pub(in crate::dispatch) fn new(max_waiting: usize) -> Arc<Self> {
        Arc::new(PollLimit { max_waiting, waiting: AtomicUsize::new(0), rejected: AtomicU64::new(0) })
    }

    /// A place, if one is free.
    pub(in crate::dispatch) fn try_acquire(self: &Arc<Self>) -> Option<PollPermit> {
        let increment = |waiting: usize| (waiting < self.max_waiting).then_some(waiting + 1);
        let acquired = self.waiting.fetch_update(Ordering::Relaxed, Ordering::Relaxed, increment).is_ok();
        acquired.then(|| PollPermit(self.clone()))
    }

    /// Somebody who wanted to wait is told to come back later.
    pub(in crate::dispatch) fn count_rejection(&self) {
        self.rejected.fetch_add(1, Ordering::Relaxed);
    }

    /// How many wait.
    pub fn waiting(&self) -> usize {
        self.waiting.load(Ordering::Relaxed)
    }

    /// How many were told to come back later.
    pub fn refused(&self) -> u64 {
        self.rejected.load(Ordering::Relaxed)
    }
}

impl Drop for PollPermit {
    fn drop(&mut self) {
        self.0.waiting.fetch_sub(1, Ordering::Relaxed);
    }
}
