//! Counters and histograms. Recording takes no lock and allocates nothing, so that it is allowed on every path.
//!
//! Each component owns its metrics; `/metrics` reads them. No metric is global: servers in one process do not share
//! them.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

/// A number that only increases.
#[derive(Default, Debug)]
pub struct Counter(AtomicU64);

impl Counter {
    /// Adds 1.
    pub fn inc(&self) {
        self.add(1);
    }

    /// Adds `number`.
    pub fn add(&self, number: u64) {
        self.0.fetch_add(number, Ordering::Relaxed);
    }

    /// Returns the current value.
    pub fn read(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

/// Defines a struct of counters with a method that returns each one's name, help text and value.
macro_rules! counters {
    ($(#[$meta:meta])* $visibility:vis struct $struct:ident { $($(#[doc = $doc:literal])* $name:ident,)* }) => {
        $(#[$meta])*
        #[derive(Default, Debug)]
        $visibility struct $struct {
            $($(#[doc = $doc])* pub(crate) $name: $crate::metrics::Counter,)*
        }

        impl $struct {
            /// Returns the name, help text and value of each counter.
            $visibility fn read(&self) -> Vec<(&'static str, &'static str, u64)> {
                vec![$((stringify!($name), concat!($($doc),*).trim_ascii(), self.$name.read()),)*]
            }
        }
    };
}
pub(crate) use counters;

/// Defines a struct of histograms. Each has its name, its help text and its buckets in one place; `read` returns all.
macro_rules! histograms {
    (
        $(#[$meta:meta])*
        $visibility:vis struct $struct:ident { $($(#[doc = $doc:literal])* $name:ident: $buckets:ident,)* }
    ) => {
        $(#[$meta])*
        #[derive(Debug)]
        $visibility struct $struct {
            $($(#[doc = $doc])* pub(crate) $name: $crate::metrics::Histogram,)*
        }

        impl Default for $struct {
            fn default() -> Self {
                $struct { $($name: $crate::metrics::Histogram::new(&$crate::metrics::$buckets),)* }
            }
        }

        impl $struct {
            /// Returns each histogram's name, help text and current values.
            $visibility fn read(&self) -> Vec<(&'static str, &'static str, $crate::metrics::HistogramSnapshot)> {
                vec![$((stringify!($name), concat!($($doc),*).trim_ascii(), self.$name.read()),)*]
            }
        }
    };
}
pub(crate) use histograms;

/// Bucket boundaries of a histogram. The last bucket is unbounded.
#[derive(Debug)]
pub struct Buckets {
    upper_bounds: &'static [u64],
    /// Recorded units per exported unit.
    per_unit: f64,
    /// Whether values are durations: recorded in µs, exported in s.
    is_time: bool,
}

/// Latencies without waiting: 100 µs to 10 s.
pub static LATENCY_BUCKETS: Buckets = Buckets {
    upper_bounds: &[
        100, 250, 500, 1_000, 2_500, 5_000, 10_000, 25_000, 50_000, 100_000, 250_000, 500_000, 1_000_000, 2_500_000,
        5_000_000, 10_000_000,
    ],
    per_unit: 1e6,
    is_time: true,
};
/// Durations of long polls: 5 ms to a minute. Bounds lie slightly above the usual wait times, because a poll that times
/// out ends slightly after its wait time.
pub static POLL_BUCKETS: Buckets = Buckets {
    upper_bounds: &[
        5_000, 50_000, 250_000, 1_100_000, 2_600_000, 5_500_000, 10_500_000, 20_500_000, 30_500_000, 61_000_000,
    ],
    per_unit: 1e6,
    is_time: true,
};
/// Lag behind a due time: 5 ms to an hour.
pub static LAG_BUCKETS: Buckets = Buckets {
    upper_bounds: &[
        5_000,
        10_000,
        25_000,
        50_000,
        100_000,
        250_000,
        500_000,
        1_000_000,
        2_500_000,
        5_000_000,
        10_000_000,
        60_000_000,
        600_000_000,
        3_600_000_000,
    ],
    per_unit: 1e6,
    is_time: true,
};
/// Items per call: 0 to 100.
pub static SIZE_BUCKETS: Buckets =
    Buckets { upper_bounds: &[0, 1, 2, 4, 8, 16, 32, 64, 100], per_unit: 1.0, is_time: false };

/// Number of values per bucket, and their sum.
#[derive(Debug)]
pub struct Histogram {
    layout: &'static Buckets,
    /// One per bound, and one for the unbounded bucket.
    counts: Box<[Counter]>,
    sum: Counter,
}

/// The values of a histogram at one time.
#[derive(Clone, PartialEq, Debug)]
pub struct HistogramSnapshot {
    /// Inclusive upper bound and number of values of each bucket. The last bound is infinite.
    pub buckets: Vec<(f64, u64)>,
    /// Sum of all values.
    pub sum: f64,
    /// Whether values are durations in s, not numbers of items.
    pub is_time: bool,
}

impl Histogram {
    /// Returns an empty histogram.
    pub fn new(layout: &'static Buckets) -> Self {
        let counts = (0..=layout.upper_bounds.len()).map(|_| Counter::default()).collect();
        Histogram { layout, counts, sum: Counter::default() }
    }

    /// Records a number of items.
    pub fn observe(&self, value: usize) {
        self.record(value as u64, 1);
    }

    /// Records a duration.
    pub fn observe_duration(&self, time: Duration) {
        self.observe_durations(time, 1);
    }

    /// Records the same duration `number` times.
    pub fn observe_durations(&self, time: Duration, number: usize) {
        self.record(u64::try_from(time.as_micros()).unwrap_or(u64::MAX), number as u64);
    }

    fn record(&self, value: u64, number: u64) {
        let index = self.layout.upper_bounds.partition_point(|bound| *bound < value);
        if number > 0
            && let Some(bucket) = self.counts.get(index)
        {
            bucket.add(number);
            self.sum.add(value.saturating_mul(number));
        }
    }

    /// Returns the current values.
    pub fn read(&self) -> HistogramSnapshot {
        let bounds =
            self.layout.upper_bounds.iter().map(|end| *end as f64 / self.layout.per_unit).chain([f64::INFINITY]);
        HistogramSnapshot {
            buckets: bounds.zip(self.counts.iter().map(Counter::read)).collect(),
            sum: self.sum.read() as f64 / self.layout.per_unit,
            is_time: self.layout.is_time,
        }
    }
}

impl HistogramSnapshot {
    /// Returns the number of values.
    pub fn count(&self) -> u64 {
        self.buckets.iter().map(|(_, count)| count).sum()
    }
}

#[cfg(test)]
mod tests {
    use crate::metrics::*;

    counters! {
        /// Two counters.
        struct Seen {
            /// The first.
            first,
            /// The second.
            second,
        }
    }

    #[test]
    fn counters_are_read_with_their_names_and_help() {
        let seen = Seen::default();
        seen.first.inc();
        seen.second.add(41);
        seen.second.inc();
        assert_eq!(seen.read(), [("first", "The first.", 1), ("second", "The second.", 42)]);
    }

    histograms! {
        struct Calls {
            /// Items in a call.
            items: SIZE_BUCKETS,
            /// Time of a call.
            duration: LATENCY_BUCKETS,
        }
    }

    #[test]
    fn histograms_are_read_with_name_help_and_unit() {
        let calls = Calls::default();
        calls.items.observe(3);
        let read: Vec<_> =
            calls.read().into_iter().map(|(name, help, of)| (name, help, of.count(), of.is_time)).collect();
        assert_eq!(read, [("items", "Items in a call.", 1, false), ("duration", "Time of a call.", 0, true)]);
    }

    #[test]
    fn value_lies_in_the_first_bucket_that_reaches_it() {
        let sizes = Histogram::new(&SIZE_BUCKETS);
        [0, 1, 2, 3, 4, 100, 101].into_iter().for_each(|size| sizes.observe(size));
        let HistogramSnapshot { buckets, sum, .. } = sizes.read();
        let counts: Vec<u64> = buckets.iter().map(|(_, count)| *count).collect();
        assert_eq!(counts, [1, 1, 1, 2, 0, 0, 0, 0, 1, 1]);
        assert_eq!(buckets.last().map(|(end, _)| *end), Some(f64::INFINITY));
        assert!((sum - 211.0).abs() < 1e-9);
        assert_eq!(sizes.read().count(), 7);
    }

    #[test]
    fn durations_are_shown_in_seconds() {
        let times = Histogram::new(&LATENCY_BUCKETS);
        times.observe_duration(Duration::from_millis(2));
        times.observe_durations(Duration::from_secs(20), 2);
        times.observe_durations(Duration::from_secs(20), 0);
        let HistogramSnapshot { buckets, sum, .. } = times.read();
        let filled: Vec<(f64, u64)> = buckets.into_iter().filter(|(_, count)| *count > 0).collect();
        assert_eq!(filled, [(0.0025, 1), (f64::INFINITY, 2)]);
        assert!((sum - 40.002).abs() < 1e-9);
    }
}
