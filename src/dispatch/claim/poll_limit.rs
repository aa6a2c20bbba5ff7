//! The limit of waiting requests. Each one holds a connection and memory.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};

use crate::store::Error;

/// Counts waiting requests and bounds their number.
#[derive(Debug)]
pub struct PollLimit {
    max_waiting: usize,
    waiting: AtomicUsize,
    rejected: AtomicU64,
}

/// The right to wait. Dropping it returns it, however the wait ended.
#[derive(Debug)]
pub(in crate::dispatch) struct PollPermit(Arc<PollLimit>);

/// Why a waiting request ends without a result.
#[derive(Clone, Debug)]
pub enum Rejection {
    /// The limit of waiting requests is reached, and nothing was ready.
    TooManyWaiting,
    /// Live leases have the same claim id, for other queues.
    ClaimIdMismatch,
    /// The store returned an error.
    Store(Error),
}

impl From<Error> for Rejection {
    fn from(error: Error) -> Self {
        Rejection::Store(error)
    }
}

impl PollLimit {
    /// A limit of `max_waiting` requests.
    pub(in crate::dispatch) fn new(max_waiting: usize) -> Arc<Self> {
        Arc::new(PollLimit { max_waiting, waiting: AtomicUsize::new(0), rejected: AtomicU64::new(0) })
    }

    /// Returns a permit, or `None` at the limit.
    pub(in crate::dispatch) fn try_acquire(self: &Arc<Self>) -> Option<PollPermit> {
        let increment = |waiting: usize| (waiting < self.max_waiting).then_some(waiting + 1);
        let acquired = self.waiting.fetch_update(Ordering::Relaxed, Ordering::Relaxed, increment).is_ok();
        acquired.then(|| PollPermit(self.clone()))
    }

    /// Counts a request that found no permit, and returns its rejection.
    pub(in crate::dispatch) fn reject(&self) -> Rejection {
        self.rejected.fetch_add(1, Ordering::Relaxed);
        Rejection::TooManyWaiting
    }

    /// Requests that wait now.
    pub fn waiting(&self) -> usize {
        self.waiting.load(Ordering::Relaxed)
    }

    /// Requests rejected so far because the limit was reached.
    pub fn rejected(&self) -> u64 {
        self.rejected.load(Ordering::Relaxed)
    }
}

impl Drop for PollPermit {
    fn drop(&mut self) {
        self.0.waiting.fetch_sub(1, Ordering::Relaxed);
    }
}
