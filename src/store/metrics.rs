//! Counters of this process's work in Redis: transitions of tasks, failed calls and retries.
//!
//! A transition is counted when its reply is parsed: once, by the server that made it, however often the call was
//! sent. A transition whose reply is lost is not counted.

use super::error::Error;
use crate::domain::state::State;
use crate::metrics::counters;

/// The counters of one Redis client.
#[derive(Default, Debug)]
pub struct Metrics {
    /// Transitions of tasks.
    pub transitions: Transitions,
    /// Failed calls and unconfirmed submits, by kind of error.
    pub errors: CallErrors,
    /// Ended tasks deleted before the end of their retention, by reason.
    pub history_deleted: HistoryDeleted,
    /// Counters without a label. `/metrics` shows each by its name, with its doc comment as help text.
    pub counters: Counters,
}

counters! {
    /// Counters without a label.
    pub struct Counters {
        /// Redis calls that were sent again after a failure that passes by itself.
        redis_retries,
        /// Corrections of a shard's clock after the clock of its Redis was set.
        clock_steps,
        /// Outages that this server ended: times of more than 2 s in which no server reached a shard.
        outages,
        /// Leases that were prolonged by outages.
        leases_prolonged,
    }
}

counters! {
    /// Transitions of tasks.
    pub struct Transitions {
        /// Tasks stored.
        submitted,
        /// Scheduled tasks that became ready at their run time.
        promoted,
        /// Scheduled tasks that a client made ready before their time.
        run_now,
        /// Tasks leased to a worker.
        claimed,
        /// Tasks completed.
        completed,
        /// Attempts that a worker reported as failed.
        failed,
        /// Leases released without counting an attempt, by the worker or for a client that has disconnected.
        released,
        /// Leases ended by a client without the token, without counting an attempt.
        revoked,
        /// Leases that expired.
        lease_expired,
        /// Tasks that became dead.
        dead,
        /// Tasks cancelled.
        cancelled,
        /// Tasks that expired before they were claimed.
        expired,
        /// Ended tasks retried by a client.
        retried,
        /// Tasks deleted, purged, or removed at the end of their retention.
        deleted,
    }
}

counters! {
    /// Ended tasks deleted before the end of their retention, by reason.
    pub struct HistoryDeleted {
        /// The memory of Redis was short.
        memory_short,
        /// The queue had more than `max_ended_per_queue`.
        max_ended,
    }
}

counters! {
    /// Failed calls, by kind of error.
    pub struct CallErrors {
        /// No reply in time, or a transient error.
        unavailable,
        /// Redis is out of memory.
        full,
        /// Redis cannot write to its disk.
        disk,
        /// A rejected user or password.
        unauthenticated,
        /// A missing permission.
        denied,
        /// Too few replicas.
        unconfirmed,
        /// An unexpected reply.
        unexpected,
    }
}

impl Transitions {
    /// Counts the state that a task went to at the end of a lease.
    pub(super) fn record_end_state(&self, state: State) {
        match state {
            State::Dead => self.dead.inc(),
            State::Cancelled => self.cancelled.inc(),
            State::Expired => self.expired.inc(),
            State::Scheduled | State::Ready | State::Leased | State::Completed => {}
        }
    }
}

impl CallErrors {
    pub(super) fn record(&self, error: &Error) {
        let counter = match error {
            Error::Unavailable(_) => &self.unavailable,
            Error::Full(_) => &self.full,
            Error::Disk(_) => &self.disk,
            Error::Unauthenticated(_) => &self.unauthenticated,
            Error::Denied(_) => &self.denied,
            // The call was not made: the circuit breaker counts the rejection.
            Error::DataLoss(_) | Error::Stopping => return,
            Error::Unconfirmed(_) => &self.unconfirmed,
            Error::Unexpected(_) => &self.unexpected,
        };
        counter.inc();
    }
}

/// Returns the number of results for which `matches` is true.
pub(super) fn count_matching<T>(results: &[T], matches: impl Fn(&T) -> bool) -> u64 {
    results.iter().filter(|result| matches(result)).count() as u64
}
