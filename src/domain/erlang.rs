//! Predicted waiting time, from the M/M/n queue.
//!
//! Tasks arrive independently (Poisson). Each takes an exponentially distributed time. A concurrency of n serves them
//! in order of arrival. The probability that a task has to wait is Erlang's delay formula, "C": A. K. Erlang, "Solution
//! of some Problems in the Theory of Probabilities of Significance in Automatic Telephone Exchanges" (1917); with the
//! distribution of the wait in L. Kleinrock, "Queueing Systems", vol. 1 (1975), chapter 3.
//!
//! For any input, the result is finite or `None`, and the cost is bounded.

/// Highest concurrency with a prediction.
pub const MAX_CONCURRENCY: u64 = 1_000_000;

/// Terms smaller than this share of the sum are left out.
const NEGLIGIBLE_TERM: f64 = 1e-20;

/// Waiting times in the steady state. All numbers are finite and not negative.
#[derive(Clone, Copy, PartialEq, Debug)]
pub struct WaitPrediction {
    /// Share of tasks that wait at all, 0 to 1.
    pub probability: f64,
    /// Mean wait of all tasks, ms, including those that do not wait.
    pub mean_ms: f64,
    /// Median wait, ms.
    pub p50_ms: f64,
    /// 95th percentile of the wait, ms.
    pub p95_ms: f64,
    /// 99th percentile of the wait, ms.
    pub p99_ms: f64,
}

/// Predicts the wait of tasks that arrive at `arrival_rate` per second, if each unit of `concurrency` ends
/// `service_rate` tasks per second.
///
/// `None` if there is no steady state (the arrival rate is at least what the concurrency can end), above
/// [`MAX_CONCURRENCY`], and for numbers that are not rates.
pub fn predict_wait(arrival_rate: f64, concurrency: u64, service_rate: f64) -> Option<WaitPrediction> {
    if !(arrival_rate.is_finite()
        && arrival_rate >= 0.0
        && service_rate.is_finite()
        && service_rate > 0.0
        && concurrency <= MAX_CONCURRENCY)
    {
        return None;
    }
    let (n, load) = (concurrency as f64, arrival_rate / service_rate);
    let spare_rate = n * service_rate - arrival_rate;
    if load >= n || spare_rate <= 0.0 {
        return None;
    }
    let probability = erlang_c(concurrency, load);
    // P(wait > t) = C * exp(-spare_rate * t).
    let wait_ms = |quantile: f64| {
        let wait = if 1.0 - probability >= quantile {
            0.0
        } else {
            (probability / (1.0 - quantile)).ln() / spare_rate * 1000.0
        };
        wait.max(0.0)
    };
    let prediction = WaitPrediction {
        probability,
        mean_ms: probability / spare_rate * 1000.0,
        p50_ms: wait_ms(0.5),
        p95_ms: wait_ms(0.95),
        p99_ms: wait_ms(0.99),
    };
    let WaitPrediction { probability, mean_ms, p50_ms, p95_ms, p99_ms } = prediction;
    [probability, mean_ms, p50_ms, p95_ms, p99_ms].iter().all(|number| number.is_finite()).then_some(prediction)
}

/// Returns the lowest concurrency, at least 1, with a mean wait of at most `target_ms`.
///
/// `None` if [`MAX_CONCURRENCY`] is not enough, and for numbers that are not rates. A target of 0 has no answer either,
/// unless no task arrives: no concurrency rules out every wait.
pub fn concurrency_needed(arrival_rate: f64, service_rate: f64, target_ms: u64) -> Option<u64> {
    let is_enough = |concurrency| {
        predict_wait(arrival_rate, concurrency, service_rate)
            .is_some_and(|prediction| prediction.mean_ms <= target_ms as f64)
    };
    if !is_enough(MAX_CONCURRENCY) || (target_ms == 0 && arrival_rate > 0.0) {
        return None;
    }
    // The mean wait falls with each unit of concurrency.
    let (mut too_few, mut enough) = (0, MAX_CONCURRENCY);
    while enough - too_few > 1 {
        let middle = too_few.midpoint(enough);
        if is_enough(middle) {
            enough = middle;
        } else {
            too_few = middle;
        }
    }
    Some(enough)
}

/// Erlang's C(n, a): the share of tasks that find all n = `concurrency` busy, for a load a below n.
///
/// From Erlang's loss formula B(n, a) = (a^n/n!) / sum over k of a^k/k!, by C = 1 / ((1 - a/n)/B + a/n).
fn erlang_c(concurrency: u64, load: f64) -> f64 {
    if load <= 0.0 {
        return 0.0;
    }
    let n = concurrency as f64;
    (1.0 / ((n - load) / n * inverse_erlang_b(concurrency, load) + load / n)).min(1.0)
}

/// 1/B(n, a) = 1 + n/a + n(n-1)/a^2 + ...
///
/// All terms are positive, so no digits cancel. The terms grow while more than `a` of n remain and vanish soon after,
/// so the number of terms is a small multiple of the square root of n. A sum that overflows is infinite: no task waits.
fn inverse_erlang_b(concurrency: u64, load: f64) -> f64 {
    let (mut remaining, mut term, mut sum) = (concurrency as f64, 1.0_f64, 1.0_f64);
    while remaining > 0.0 && term > sum * NEGLIGIBLE_TERM && sum.is_finite() {
        term *= remaining / load;
        sum += term;
        remaining -= 1.0;
    }
    sum
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// C(n, a) from the recursion B(k) = a B(k-1) / (k + a B(k-1)), B(0) = 1: an independent calculation.
    fn erlang_c_by_recursion(concurrency: u64, load: f64) -> f64 {
        let loss = (1..=concurrency).fold(1.0, |loss, k| load * loss / (k as f64 + load * loss));
        concurrency as f64 * loss / (concurrency as f64 - load * (1.0 - loss))
    }

    fn is_close(left: f64, right: f64, tolerance: f64) -> bool {
        (left - right).abs() <= tolerance * left.abs().max(right.abs())
    }

    #[test]
    fn waits_at_concurrency_1_and_2_are_those_computed_by_hand() {
        // M/M/1: C = a. M/M/2: C = a^2 / (2 + a).
        assert!(is_close(erlang_c(1, 0.75), 0.75, 1e-12));
        assert!(is_close(erlang_c(2, 1.5), 2.25 / 3.5, 1e-12));
        // Mean wait of M/M/1 at arrival rate 3/s and service rate 4/s: 0.75 / (4 - 3) s; p99 ln(0.75/0.01) / (4 - 3) s.
        let single = predict_wait(3.0, 1, 4.0).unwrap();
        assert!(is_close(single.mean_ms, 750.0, 1e-12));
        assert!(is_close(single.p99_ms, 1000.0 * 75_f64.ln(), 1e-12));
        assert!(is_close(single.p50_ms, 1000.0 * 1.5_f64.ln(), 1e-12));
    }

    #[test]
    fn median_wait_is_zero_if_fewer_than_half_of_the_tasks_wait() {
        let six = predict_wait(40.0, 6, 10.0).unwrap();
        assert!(six.probability < 0.5 && six.p50_ms == 0.0 && six.p95_ms > 0.0 && six.p99_ms > six.p95_ms);
    }

    #[test]
    fn large_concurrency_matches_the_recursion_and_is_fast() {
        for (concurrency, load) in [(100, 80.0), (10_000, 9_900.0), (100_000, 99_500.0), (1_000_000, 999_000.0)] {
            assert!(
                is_close(erlang_c(concurrency, load), erlang_c_by_recursion(concurrency, load), 1e-8),
                "{concurrency} {load}"
            );
        }
        // Neither almost no load nor almost full load overflows.
        assert_eq!(erlang_c(MAX_CONCURRENCY, 1.0), 0.0);
        assert!(erlang_c(MAX_CONCURRENCY, 999_999.999) > 0.99);
    }

    #[test]
    fn unstable_queue_has_no_prediction() {
        for (arrival_rate, concurrency, service_rate) in
            [(10.0, 1, 10.0), (11.0, 1, 10.0), (1.0, 0, 1.0), (0.0, 0, 1.0), (1.0, 1, 0.0)]
        {
            assert_eq!(
                predict_wait(arrival_rate, concurrency, service_rate),
                None,
                "{arrival_rate} {concurrency} {service_rate}"
            );
        }
        assert_eq!(predict_wait(0.0, 1, 1.0).unwrap().mean_ms, 0.0);
        assert_eq!(predict_wait(1.0, MAX_CONCURRENCY + 1, 1.0), None);
    }

    #[test]
    fn concurrency_needed_is_the_smallest() {
        // 40 tasks/s of 100 ms each: the load is 4, so 5 is the lowest stable concurrency, with a mean wait of 55.4 ms.
        assert_eq!(concurrency_needed(40.0, 10.0, 1_000_000), Some(5));
        assert_eq!(concurrency_needed(40.0, 10.0, 56), Some(5));
        assert_eq!(concurrency_needed(40.0, 10.0, 55), Some(6));
        assert_eq!(concurrency_needed(40.0, 10.0, 14), Some(7));
        assert_eq!(concurrency_needed(40.0, 10.0, 0), None);
        assert_eq!(concurrency_needed(0.0, 10.0, 0), Some(1));
        assert_eq!(concurrency_needed(2e6, 1.0, 1000), None);
    }

    proptest! {
        #[test]
        fn sum_and_recursion_agree(concurrency in 1_u64..2000, share in 0.01_f64..0.999) {
            let load = concurrency as f64 * share;
            let (sum, recursion) = (erlang_c(concurrency, load), erlang_c_by_recursion(concurrency, load));
            prop_assert!(is_close(sum, recursion, 1e-9) || recursion < 1e-290, "{sum} {recursion}");
        }

        #[test]
        fn concurrency_below_needed_is_too_small(m in 0.01_f64..2000.0, c in 0.01_f64..50.0, target in 1_u64..5000) {
            let needed = concurrency_needed(m, c, target).unwrap();
            prop_assert!(predict_wait(m, needed, c).unwrap().mean_ms <= target as f64);
            let fewer = predict_wait(m, needed - 1, c);
            prop_assert!(fewer.is_none_or(|prediction| prediction.mean_ms > target as f64));
        }

        #[test]
        fn predictions_are_finite(m in any::<f64>(), c in any::<f64>(), n in any::<u64>(), bits in 0_u32..64) {
            for (m, c) in [(m, c), (m.abs(), c.abs())] {
                if let Some(WaitPrediction { probability, mean_ms, p50_ms, p95_ms, p99_ms }) = predict_wait(m, n >> bits, c) {
                    prop_assert!((0.0..=1.0).contains(&probability));
                    prop_assert!(mean_ms.is_finite() && mean_ms >= 0.0);
                    prop_assert!(0.0 <= p50_ms && p50_ms <= p95_ms && p95_ms <= p99_ms && p99_ms.is_finite());
                }
                let needed = concurrency_needed(m, c, n >> bits);
                prop_assert!(needed.is_none_or(|needed| (1..=MAX_CONCURRENCY).contains(&needed)));
            }
        }
    }
}
