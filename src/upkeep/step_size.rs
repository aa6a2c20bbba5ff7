//! The size of a step: as many entries as take Redis a few milliseconds.

use std::time::Duration;

/// The time that a step may take. Other clients of Redis wait for it, and so do the turns behind it.
const TARGET: Duration = Duration::from_millis(4);
const INITIAL: usize = 100;
const MAX: usize = 250;
/// The minimum for a queue alone. A smaller step costs more for itself than for its entries.
const MIN: usize = 50;
/// The minimum for each of many queues that share a round.
const MIN_SHARED: usize = 10;

/// The number of entries per step of one job, adapted to the duration of its steps. If many shards, servers or clients share
/// a Redis, steps take longer, and become smaller.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct StepSize(usize);

impl Default for StepSize {
    fn default() -> Self {
        StepSize(INITIAL)
    }
}

impl StepSize {
    /// Returns the entries per step for each of `turns` queues that share a round.
    pub(super) fn limit(self, turns: usize) -> usize {
        (self.0 / turns.max(1)).max(MIN_SHARED)
    }

    /// Adapts the size to a step that took `duration`. `is_full`: the step had as many entries as it was allowed.
    pub(super) fn adapt(&mut self, duration: Duration, is_full: bool) {
        if duration > TARGET {
            self.0 = (self.0 / 2).max(MIN);
        } else if is_full && duration < TARGET / 2 {
            self.0 = (self.0 * 3 / 2).min(MAX);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn size_follows_the_duration_of_steps_within_its_bounds() {
        let mut size = StepSize::default();
        for _ in 0..20 {
            size.adapt(Duration::from_millis(1), true);
        }
        assert_eq!((size.limit(1), size.limit(5), size.limit(1000)), (MAX, MAX / 5, MIN_SHARED));
        size.adapt(Duration::from_millis(5), true);
        assert_eq!(size.limit(1), MAX / 2);
        size.adapt(Duration::from_millis(1), false);
        assert_eq!(size.limit(1), MAX / 2, "a step with less work shows nothing");
        for _ in 0..20 {
            size.adapt(Duration::from_millis(50), false);
        }
        assert_eq!(size.limit(1), MIN);
    }
}
