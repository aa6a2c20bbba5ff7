//! Metrics of this server's claims, deliveries and wake-ups.

use crate::metrics::{counters, histograms};
use crate::store::notify::wakeups::Wakeup;

/// The metrics of dispatch. `/metrics` shows each field of the tables by its name, with its doc comment as help text.
#[derive(Default, Debug)]
pub struct Metrics {
    /// Counters without a label.
    pub counters: Counters,
    /// Histograms without a label.
    pub histograms: Histograms,
    /// Wake-ups by kind.
    pub wakeups: WakeupCounts,
}

counters! {
    /// Counters without a label.
    pub struct Counters {
        /// Polls of Redis for wake-ups that may have been lost, one for each shard.
        polls,
        /// Leases released because no response could carry them: the client had left or had its empty response already.
        undelivered_leases_released,
        /// Tasks handed over to waiting claims by the calls that stored them.
        hand_offs,
    }
}

histograms! {
    /// Histograms without a label.
    pub struct Histograms {
        /// Time until a waiter has its tasks, from the event that started its shard's claim call: a waiter, a wake-up,
        /// a poll that found tasks, or tasks left by the call before. For a hand-off, the duration of the submit call.
        delivery_duration: LATENCY_BUCKETS,
        /// Waiters served by one claim call.
        claim_call_waiters: SIZE_BUCKETS,
        /// Tasks claimed by one claim call.
        claim_call_tasks: SIZE_BUCKETS,
    }
}

counters! {
    /// Wake-ups received from Redis.
    pub struct WakeupCounts {
        /// A queue has a ready task.
        ready,
        /// A task is due earlier than any before.
        due,
        /// A task with a completion waiter has ended.
        ended,
        /// A server, this one included, has announced its waiters.
        waiting,
        /// The connection was reopened: wake-ups may have been missed.
        gap,
    }
}

impl Metrics {
    /// Counts a wake-up by its kind.
    pub(super) fn count_wakeup(&self, wakeup: &Wakeup) {
        match wakeup {
            Wakeup::Ready { .. } => self.wakeups.ready.inc(),
            Wakeup::Due { .. } => self.wakeups.due.inc(),
            Wakeup::Ended(_) => self.wakeups.ended.inc(),
            Wakeup::Waiting { .. } => self.wakeups.waiting.inc(),
            Wakeup::Gap { .. } => self.wakeups.gap.inc(),
            // The gap that follows counts.
            Wakeup::Interrupted => {}
        }
    }
}
