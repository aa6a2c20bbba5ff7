//! What upkeep was late with, and how often it failed.

use std::time::Duration;

use crate::metrics::{Counter, Histogram, HistogramSnapshot, LAG_BUCKETS};
use crate::store::views::next_due::NextDue;

/// What upkeep was late with, and how often it failed.
#[derive(Debug)]
pub struct Metrics {
    due_lag: Histogram,
    deadline_lag: Histogram,
    retention_lag: Histogram,
    pub(super) failures: Counter,
}

impl Default for Metrics {
    fn default() -> Self {
        let late = || Histogram::new(&LAG_BUCKETS);
        Metrics { due_lag: late(), deadline_lag: late(), retention_lag: late(), failures: Counter::default() }
    }
}

impl Metrics {
    /// How late work was begun, by what it was: delays, retries and leases; deadlines; ends of retention.
    pub fn lags(&self) -> [(&'static str, HistogramSnapshot); 3] {
        [("due", self.due_lag.read()), ("deadline", self.deadline_lag.read()), ("retention", self.retention_lag.read())]
    }

    /// How many turns failed.
    pub fn failures(&self) -> u64 {
        self.failures.read()
    }

    /// Takes note of what has come due, and of how late that is seen.
    pub(super) fn record_lags(&self, schedule: &NextDue) {
        for (time, histogram) in [
            (schedule.due_at, &self.due_lag),
            (schedule.expires_at, &self.deadline_lag),
            (schedule.retention_ends_at, &self.retention_lag),
        ] {
            if let Some(lag) = time.and_then(|time| u64::try_from(schedule.now.0.saturating_sub(time.0)).ok()) {
                histogram.observe_duration(Duration::from_millis(lag));
            }
        }
    }
}
