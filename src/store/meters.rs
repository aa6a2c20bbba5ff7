//! What this process has done in Redis: transitions of tasks, calls that failed, calls made again.
//!
//! A transition is counted where its answer is read, so by the one server that brought it about, and once, however often
//! its call was sent. One whose answer never came is not counted.

use super::error::Error;
use super::ops::Ended;
use crate::domain::state::State;
use crate::measure::{Counter, counters};

/// The instruments of a connection to Redis.
#[derive(Default, Debug)]
pub struct Meters {
    /// What happened to tasks.
    pub transitions: Transitions,
    /// Calls that were given up, and submits that were not confirmed, by what was wrong.
    pub errors: Errors,
    /// Calls that were sent again because Redis was away, or said later.
    pub repeated: Counter,
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
        lease_ran_out,
        /// Tasks that will not be tried again.
        dead,
        /// Tasks called off.
        cancelled,
        /// Tasks whose deadline passed while they waited.
        expired,
        /// Ended tasks that a client wanted run again.
        retried,
        /// Tasks forgotten: deleted, purged, or past their retention.
        removed,
    }
}

counters! {
    /// What was wrong.
    pub struct Errors {
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
    pub(super) fn ended(&self, verb: &Counter, outcomes: &[Ended]) {
        for outcome in outcomes {
            if let Ended::Done { state, repeated: false, .. } = outcome {
                verb.one();
                self.led_to(*state);
            }
        }
    }

    /// The end of a lease led to this state.
    fn led_to(&self, state: State) {
        match state {
            State::Dead => self.dead.one(),
            State::Cancelled => self.cancelled.one(),
            State::Scheduled | State::Ready | State::Leased | State::Completed | State::Expired => {}
        }
    }
}

impl Errors {
    pub(super) fn note(&self, error: &Error) {
        let counter = match error {
            Error::Unavailable(_) => &self.unavailable,
            Error::Full(_) => &self.full,
            Error::Disk(_) => &self.disk,
            // Known before a call is made: the gate counts those whom it turns away.
            Error::Lost(_) => return,
            Error::Unconfirmed(_) => &self.unconfirmed,
            Error::Unexpected(_) => &self.unexpected,
        };
        counter.one();
    }
}

/// How many of `answers` are so.
pub(super) fn tally<T>(answers: &[T], so: impl Fn(&T) -> bool) -> u64 {
    answers.iter().filter(|answer| so(answer)).count() as u64
}
