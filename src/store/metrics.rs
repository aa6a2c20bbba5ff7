//! What this process has done in Redis: transitions of tasks, calls that failed, calls made again.
//!
//! A transition is counted where its answer is read, so by the one server that brought it about, and once, however often
//! its call was sent. One whose answer never came is not counted.

use super::error::Error;
use super::ops::LeaseEnd;
use crate::domain::state::State;
use crate::metrics::{Counter, counters};

/// The instruments of a connection to Redis.
#[derive(Default, Debug)]
pub struct Metrics {
    /// What happened to tasks.
    pub transitions: Transitions,
    /// Calls that were given up, and submits that were not confirmed, by what was wrong.
    pub errors: CallErrors,
    /// Calls that were sent again because Redis was away, or said later.
    pub retries: Counter,
}

counters! {
    /// What happened to tasks.
    pub struct Transitions {
        /// Tasks that were stored.
        submitted,
        /// Scheduled tasks whose time had come.
        promoted,
        /// Tasks handed out.
        claimed,
        /// Tasks done.
        completed,
        /// Attempts that a worker reported as failed.
        failed,
        /// Leases given back, their attempt not counted.
        released,
        /// Leases that ran out.
        lease_expired,
        /// Tasks that will not be tried again.
        dead,
        /// Tasks called off.
        cancelled,
        /// Tasks whose deadline passed while they waited.
        expired,
        /// Ended tasks that a client wanted run again.
        retried,
        /// Tasks forgotten: deleted, purged, or past their retention.
        deleted,
    }
}

counters! {
    /// What was wrong.
    pub struct CallErrors {
        /// No answer in time, or one that passes by itself.
        unavailable,
        /// No memory.
        full,
        /// No disk.
        disk,
        /// Too few replicas.
        unconfirmed,
        /// An answer that should not be.
        unexpected,
    }
}

impl Transitions {
    /// Leases were to be ended; those that did end by this count as `verb`.
    pub(super) fn record_lease_ends(&self, counter: &Counter, outcomes: &[LeaseEnd]) {
        for outcome in outcomes {
            if let LeaseEnd::Done { state, repeated: false, .. } = outcome {
                counter.inc();
                self.record_end_state(*state);
            }
        }
    }

    /// The end of a lease led to this state.
    fn record_end_state(&self, state: State) {
        match state {
            State::Dead => self.dead.inc(),
            State::Cancelled => self.cancelled.inc(),
            State::Scheduled | State::Ready | State::Leased | State::Completed | State::Expired => {}
        }
    }
}

impl CallErrors {
    pub(super) fn record(&self, error: &Error) {
        let counter = match error {
            Error::Unavailable(_) => &self.unavailable,
            Error::Full(_) => &self.full,
            Error::Disk(_) => &self.disk,
            // Known before a call is made: the gate counts those whom it turns away.
            Error::DataLoss(_) | Error::Stopping => return,
            Error::Unconfirmed(_) => &self.unconfirmed,
            Error::Unexpected(_) => &self.unexpected,
        };
        counter.inc();
    }
}

/// How many of `answers` are so.
pub(super) fn count_matching<T>(results: &[T], matches: impl Fn(&T) -> bool) -> u64 {
    results.iter().filter(|answer| matches(answer)).count() as u64
}
