//! Delay before the next attempt of a failed task.

use serde::{Deserialize, Serialize};

use super::limits;

/// Random spread of delays, so that tasks that fail together are not retried together.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Jitter {
    /// Uniform between 0 and the delay.
    Full,
    /// The exact delay.
    None,
}

/// Growth of the delay with the number of attempts.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub enum BackoffKind {
    /// `base_ms * factor^(attempt-1)`, at most `max_ms`.
    Exponential {
        /// First delay, ms.
        base_ms: i64,
        /// Factor between successive delays.
        factor: f64,
        /// Longest delay, ms.
        max_ms: i64,
    },
    /// A constant delay.
    Fixed {
        /// The delay, ms.
        base_ms: i64,
    },
    /// The n-th delay after the n-th attempt; the last delay from then on.
    List {
        /// The delays, ms; not empty.
        delays_ms: Vec<i64>,
    },
}

/// A task's retry policy.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub struct Backoff {
    /// Growth of the delay.
    #[serde(flatten)]
    pub kind: BackoffKind,
    /// Spread of the delay.
    pub jitter: Jitter,
}

impl Default for Backoff {
    fn default() -> Self {
        Backoff {
            kind: BackoffKind::Exponential {
                base_ms: limits::BACKOFF_BASE_MS.default,
                factor: limits::BACKOFF_FACTOR.2,
                max_ms: limits::BACKOFF_MAX_MS.default,
            },
            jitter: Jitter::Full,
        }
    }
}

impl Backoff {
    /// Returns the delay after failed attempt number `attempt` (from 1), ms. `random` is drawn from 0..1.
    ///
    /// Full jitter as in M. Brooker, "Exponential Backoff And Jitter" (2015): uniform over 0..delay.
    pub fn wait_ms(&self, attempt: u32, random: f64) -> i64 {
        let wait = match &self.kind {
            BackoffKind::Exponential { base_ms, factor, max_ms } => {
                // 0 stays 0. The product below would be NaN once the power overflows to infinity.
                if *base_ms == 0 {
                    return 0;
                }
                let steps = i32::try_from(attempt.saturating_sub(1)).unwrap_or(i32::MAX);
                (*base_ms as f64 * factor.powi(steps)).min(*max_ms as f64)
            }
            BackoffKind::Fixed { base_ms } => *base_ms as f64,
            BackoffKind::List { delays_ms } => {
                let index = (attempt.saturating_sub(1) as usize).min(delays_ms.len().saturating_sub(1));
                delays_ms.get(index).copied().unwrap_or(0) as f64
            }
        };
        match self.jitter {
            Jitter::Full => (wait * random) as i64,
            Jitter::None => wait as i64,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn exponential_backoff_grows_to_its_cap() {
        let backoff = Backoff { jitter: Jitter::None, ..Backoff::default() };
        let waits: Vec<_> = (1..=4).map(|attempt| backoff.wait_ms(attempt, 0.0)).collect();
        assert_eq!(waits, [1000, 2000, 4000, 8000]);
        assert_eq!(backoff.wait_ms(1000, 0.0), 3_600_000);
    }

    #[test]
    fn backoff_list_repeats_its_last_delay() {
        let kind = BackoffKind::List { delays_ms: vec![5, 7] };
        let backoff = Backoff { kind, jitter: Jitter::None };
        assert_eq!([1, 2, 3].map(|attempt| backoff.wait_ms(attempt, 0.5)), [5, 7, 7]);
    }

    proptest! {
        #[test]
        fn jitter_stays_within_the_delay(attempt in 1u32..1000, random in 0.0f64..1.0) {
            let wait = Backoff::default().wait_ms(attempt, random);
            prop_assert!((0..=3_600_000).contains(&wait));
        }
    }
}
