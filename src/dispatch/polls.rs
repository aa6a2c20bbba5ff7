//! How many requests wait, and how many may: each holds a connection, memory, and a place in line.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};

/// Places for those who wait.
#[derive(Debug)]
pub struct Polls {
    most: usize,
    waiting: AtomicUsize,
    refused: AtomicU64,
}

/// A place; given up when it is dropped, however the wait ended.
#[derive(Debug)]
pub(super) struct Place(Arc<Polls>);

impl Polls {
    pub(super) fn new(most: usize) -> Arc<Self> {
        Arc::new(Polls { most, waiting: AtomicUsize::new(0), refused: AtomicU64::new(0) })
    }

    /// A place, if one is free.
    pub(super) fn enter(self: &Arc<Self>) -> Option<Place> {
        let more = |waiting: usize| (waiting < self.most).then_some(waiting + 1);
        let entered = self.waiting.fetch_update(Ordering::Relaxed, Ordering::Relaxed, more).is_ok();
        entered.then(|| Place(self.clone()))
    }

    /// Somebody who wanted to wait is told to come back later.
    pub(super) fn refuse(&self) {
        self.refused.fetch_add(1, Ordering::Relaxed);
    }

    /// How many wait.
    pub fn waiting(&self) -> usize {
        self.waiting.load(Ordering::Relaxed)
    }

    /// How many were told to come back later.
    pub fn refused(&self) -> u64 {
        self.refused.load(Ordering::Relaxed)
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.0.waiting.fetch_sub(1, Ordering::Relaxed);
    }
}
