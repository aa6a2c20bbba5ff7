//! What this server has dispatched, counted and timed.

use std::time::Duration;

use super::Dispatch;
use crate::metrics::{Counter, Histogram, HistogramSnapshot, LATENCY_BUCKETS, SIZE_BUCKETS, counters};
use crate::store::notify::wakeups::Wakeup;

/// The instruments of the engine.
#[derive(Debug)]
pub struct Metrics {
    call_waiters: Histogram,
    call_tasks: Histogram,
    delivery_duration: Histogram,
    wakeups: WakeupCounts,
    pub(super) polls: Counter,
    pub(super) undelivered_released: Counter,
}

counters! {
    /// WakeupCounts of scripts that were heard.
    pub struct WakeupCounts {
        /// A queue has something to claim.
        ready,
        /// Something is due earlier than it was.
        due,
        /// A task that is waited for has ended.
        ended,
        /// The connection was made anew: signals may have been missed.
        gap,
    }
}

impl Default for Metrics {
    fn default() -> Self {
        Metrics {
            call_waiters: Histogram::new(&SIZE_BUCKETS),
            call_tasks: Histogram::new(&SIZE_BUCKETS),
            delivery_duration: Histogram::new(&LATENCY_BUCKETS),
            wakeups: WakeupCounts::default(),
            polls: Counter::default(),
            undelivered_released: Counter::default(),
        }
    }
}

impl Metrics {
    /// A call of a pump looked for so many.
    pub(super) fn observe_call_waiters(&self, waiters: usize) {
        self.call_waiters.observe(waiters);
    }

    /// It brought so many tasks.
    pub(super) fn observe_call_tasks(&self, tasks: usize) {
        self.call_tasks.observe(tasks);
    }

    /// So many waiters were served, so long after the pump had a reason to look.
    pub(super) fn observe_deliveries(&self, served: usize, elapsed: Duration) {
        self.delivery_duration.observe_durations(elapsed, served);
    }

    /// A script said something.
    pub(super) fn count_wakeup(&self, wakeup: &Wakeup) {
        match wakeup {
            Wakeup::Ready { .. } => self.wakeups.ready.inc(),
            Wakeup::Due { .. } => self.wakeups.due.inc(),
            Wakeup::Ended(_) => self.wakeups.ended.inc(),
            Wakeup::Gap => self.wakeups.gap.inc(),
        }
    }

    /// For how many waiters each call of a pump looked.
    pub fn call_waiters(&self) -> HistogramSnapshot {
        self.call_waiters.read()
    }

    /// How many tasks each brought.
    pub fn call_tasks(&self) -> HistogramSnapshot {
        self.call_tasks.read()
    }

    /// From when a pump had a reason to look (a waiter or a hint came, a sweep found something, or the call before left
    /// something) until a waiter had its tasks.
    pub fn delivery_duration(&self) -> HistogramSnapshot {
        self.delivery_duration.read()
    }

    /// What scripts said.
    pub fn wakeups(&self) -> &WakeupCounts {
        &self.wakeups
    }

    /// How often shards were looked through for what hints may have missed.
    pub fn polls(&self) -> u64 {
        self.polls.read()
    }

    /// How many leases were given back that nobody took.
    pub fn undelivered_released(&self) -> u64 {
        self.undelivered_released.read()
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
