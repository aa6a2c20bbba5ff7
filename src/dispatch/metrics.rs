//! What this server has dispatched, counted and timed.

use super::Dispatch;
use crate::metrics::{HistogramSnapshot, counters, histograms};
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
        /// Periodic looks at Redis for wake-ups that may have been lost, one for each shard.
        polls,
        /// Leases released because no response could carry them: the client had left or had its empty response already.
        undelivered_leases_released,
    }
}

histograms! {
    /// Histograms without a label.
    pub struct Histograms {
        /// Time until a waiter has its tasks, from the event that started its shard's claim call: a waiter, a wake-up,
        /// a poll that found tasks, or tasks left by the call before.
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
        /// A queue has something to claim.
        ready,
        /// Something is due earlier than before.
        due,
        /// A task with a completion waiter has ended.
        ended,
        /// The connection was opened anew: wake-ups may have been missed.
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
            Wakeup::Gap => self.wakeups.gap.inc(),
        }
    }
}

impl Dispatch {
    /// What was dispatched, counted and timed.
    pub fn metrics(&self) -> &Metrics {
        &self.metrics
    }

    /// How many items went into one call, by verb.
    pub fn batch_items(&self) -> [(&'static str, HistogramSnapshot); 10] {
        [
            ("submit", self.submits.batch_items()),
            ("complete", self.completes.batch_items()),
            ("fail", self.fails.batch_items()),
            ("heartbeat", self.heartbeats.batch_items()),
            ("release", self.releases.batch_items()),
            ("cancel", self.cancels.batch_items()),
            ("retry", self.retries.batch_items()),
            ("delete", self.deletes.batch_items()),
            ("remember", self.idempotency_records.batch_items()),
            ("watch", self.completion_watches.batch_items()),
        ]
    }
}
