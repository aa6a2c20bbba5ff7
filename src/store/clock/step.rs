//! Distinguishes an outage from a step of Redis' clock, by a clock that is never set.

use std::time::Duration;

use rustix::time::{ClockId, clock_gettime};

/// Two clocks that are never set differ by less than this, beside [`DRIFT`].
const TOLERANCE_MS: i64 = 500;
/// One part of this many by which a clock may be faster than another.
const DRIFT: i64 = 1000;
/// A reading whose reply took longer is repeated once.
const PRECISE_MS: i64 = 100;
/// A shift below this is no shift: the clock was set right again.
const MIN_SHIFT_MS: i64 = 250;

/// The time since this machine was started, its sleep included. No setting of a clock changes it.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub struct Uptime(Duration);

impl Uptime {
    /// Returns the current time.
    pub fn now() -> Self {
        // On other systems the monotonic clock also counts sleep.
        #[cfg(target_os = "linux")]
        let time = clock_gettime(ClockId::Boottime);
        #[cfg(not(target_os = "linux"))]
        let time = clock_gettime(ClockId::Monotonic);
        Uptime(Duration::new(time.tv_sec.unsigned_abs(), u32::try_from(time.tv_nsec).unwrap_or(0)))
    }

    fn ms_since(self, earlier: Uptime) -> i64 {
        i64::try_from(self.0.saturating_sub(earlier.0).as_millis()).unwrap_or(i64::MAX)
    }
}

/// A reading of a shard's clock, and the time within which it was taken.
#[derive(Clone, Copy, Debug)]
pub(super) struct Sighting {
    /// The shard's clock in ms.
    pub(super) time_ms: i64,
    /// Before the reading.
    pub(super) sent: Uptime,
    /// After it.
    pub(super) received: Uptime,
}

impl Sighting {
    /// Whether the time of the reading is known well enough to measure a step by it.
    pub(super) fn is_precise(&self) -> bool {
        self.received.ms_since(self.sent) <= PRECISE_MS
    }
}

/// Returns by how many ms Redis' clock was set between two readings; 0 if it was not. Without an earlier reading, a clock
/// is trusted if it is not behind `last_touch_ms`. The shard's clock never goes back.
pub(super) fn step_ms(earlier: Option<&Sighting>, last_touch_ms: i64, now: &Sighting) -> i64 {
    let mut step = 0;
    if let Some(earlier) = earlier {
        let (shortest, longest) = (now.sent.ms_since(earlier.received), now.received.ms_since(earlier.sent));
        let (first, last) = (earlier.time_ms + shortest, earlier.time_ms + longest);
        let tolerance = TOLERANCE_MS + longest / DRIFT;
        if now.time_ms > last + tolerance {
            step = now.time_ms - last;
        } else if now.time_ms < first - tolerance {
            step = now.time_ms - first;
        }
    }
    if now.time_ms - step < last_touch_ms - TOLERANCE_MS { now.time_ms - last_touch_ms } else { step }
}

/// Returns the shift after a step.
pub(super) fn shift_after(shift_ms: i64, step_ms: i64) -> i64 {
    match shift_ms - step_ms {
        shift if step_ms != 0 && shift.abs() < MIN_SHIFT_MS => 0,
        shift => shift,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const HOUR: i64 = 3_600_000;

    /// A reading at `at` ms that took 10 ms.
    fn sighting(time_ms: i64, at: u64) -> Sighting {
        let uptime = |ms| Uptime(Duration::from_millis(ms));
        Sighting { time_ms, sent: uptime(at), received: uptime(at + 10) }
    }

    #[test]
    fn outage_is_no_step_however_long() {
        let earlier = sighting(1_000_000, 5000);
        for outage in [2500, 60_000, 10 * HOUR] {
            let now = sighting(1_000_000 + outage, 5000 + outage as u64);
            assert_eq!(step_ms(Some(&earlier), 1_000_000, &now), 0);
            assert_eq!(step_ms(None, 1_000_000, &now), 0, "a server that has just started");
        }
        // A clock that is slewed during a long outage.
        let now = sighting(1_000_000 + 10 * HOUR + 18_000, 5000 + 10 * HOUR as u64);
        assert_eq!(step_ms(Some(&earlier), 1_000_000, &now), 0);
    }

    #[test]
    fn step_is_told_from_the_outage_that_it_falls_in() {
        let earlier = sighting(1_000_000, 5000);
        for step in [HOUR, -HOUR, 3000, -3000] {
            for passed in [500, 5000, 600_000] {
                let now = sighting(1_000_000 + passed + step, 5000 + passed as u64);
                let found = step_ms(Some(&earlier), 1_000_000, &now);
                assert!((found - step).abs() <= 10, "{step} after {passed}: {found}");
            }
        }
    }

    #[test]
    fn shard_clock_never_goes_back() {
        assert_eq!(step_ms(None, HOUR, &sighting(0, 0)), -HOUR, "a server that has just started");
        let earlier = sighting(1000, 0);
        assert_eq!(step_ms(Some(&earlier), HOUR, &sighting(1500, 500)), 1500 - HOUR, "another server was further");
    }

    #[test]
    fn clock_that_is_set_right_again_has_no_shift() {
        let shift = shift_after(0, HOUR);
        assert_eq!(shift, -HOUR);
        assert_eq!(shift_after(shift, -HOUR - 7), 0);
        assert_eq!(shift_after(100, 0), 100);
    }
}
