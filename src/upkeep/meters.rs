//! What upkeep was late with, and how often it failed.

use std::time::Duration;

use crate::measure::{Counter, Distribution, Histogram, LATE};
use crate::store::views::horizon::Horizon;

/// What upkeep was late with, and how often it failed.
#[derive(Debug)]
pub struct Meters {
    due: Histogram,
    deadline: Histogram,
    retention: Histogram,
    pub(super) failures: Counter,
}

impl Default for Meters {
    fn default() -> Self {
        let late = || Histogram::new(&LATE);
        Meters { due: late(), deadline: late(), retention: late(), failures: Counter::default() }
    }
}

impl Meters {
    /// How late work was begun, by what it was: delays, retries and leases; deadlines; ends of retention.
    pub fn lags(&self) -> [(&'static str, Distribution); 3] {
        [("due", self.due.read()), ("deadline", self.deadline.read()), ("retention", self.retention.read())]
    }

    /// How many turns failed.
    pub fn failures(&self) -> u64 {
        self.failures.read()
    }

    /// Takes note of what has come due, and of how late that is seen.
    pub(super) fn note(&self, seen: &Horizon) {
        for (time, lags) in [(seen.due, &self.due), (seen.deadline, &self.deadline), (seen.retain, &self.retention)] {
            if let Some(lag) = time.and_then(|time| u64::try_from(seen.now.0.saturating_sub(time.0)).ok()) {
                lags.observe_time(Duration::from_millis(lag));
            }
        }
    }
}
