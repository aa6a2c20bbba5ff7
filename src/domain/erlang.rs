//! How long tasks would wait: the queue M/M/n.
//!
//! Tasks come independently of one another (Poisson), each takes a time that is exponentially distributed, and n equal
//! lanes serve them in the order in which they came. The probability that one has to wait is Erlang's delay formula, "C":
//! A. K. Erlang, "Solution of some Problems in the Theory of Probabilities of Significance in Automatic Telephone
//! Exchanges" (1917); with the distribution of the wait in L. Kleinrock, "Queueing Systems", vol. 1 (1975), chapter 3.
//!
//! Whatever is asked, the answer is finite or `None`, and its cost is bounded.

/// The most lanes that a prediction is made for.
pub const MOST_LANES: u64 = 1_000_000;

/// Parts of a sum smaller than this are left out.
const NEGLIGIBLE: f64 = 1e-20;

/// What waiting is like when coming and going have long balanced. All numbers are finite and not negative.
#[derive(Clone, Copy, PartialEq, Debug)]
pub struct Waiting {
    /// The share of the tasks that wait at all, 0 to 1.
    pub probability: f64,
    /// The mean wait of all tasks, ms, those that do not wait included.
    pub mean_ms: f64,
    /// The wait that half of the tasks do not exceed, ms.
    pub p50_ms: f64,
    /// The wait that 95 of 100 tasks do not exceed, ms.
    pub p95_ms: f64,
    /// The wait that 99 of 100 tasks do not exceed, ms.
    pub p99_ms: f64,
}

/// Waiting where `m` tasks a second come to `lanes` that each end `c` a second.
///
/// `None` where there is no balance (as many come as the lanes can end, or more), for more than [`MOST_LANES`], and for
/// numbers that are no rates.
pub fn waiting(m: f64, lanes: u64, c: f64) -> Option<Waiting> {
    if !(m.is_finite() && m >= 0.0 && c.is_finite() && c > 0.0 && lanes <= MOST_LANES) {
        return None;
    }
    let (n, load) = (lanes as f64, m / c);
    let spare = n * c - m;
    if load >= n || spare <= 0.0 {
        return None;
    }
    let probability = delayed(lanes, load);
    // A wait lasts longer than t with probability C * exp(-spare * t).
    let wait_ms = |q: f64| {
        let wait = if 1.0 - probability >= q { 0.0 } else { (probability / (1.0 - q)).ln() / spare * 1000.0 };
        wait.max(0.0)
    };
    let found = Waiting {
        probability,
        mean_ms: probability / spare * 1000.0,
        p50_ms: wait_ms(0.5),
        p95_ms: wait_ms(0.95),
        p99_ms: wait_ms(0.99),
    };
    let Waiting { probability, mean_ms, p50_ms, p95_ms, p99_ms } = found;
    [probability, mean_ms, p50_ms, p95_ms, p99_ms].iter().all(|number| number.is_finite()).then_some(found)
}

/// The fewest lanes, at least one, with which the mean wait is `target_ms` or less.
///
/// `None` where [`MOST_LANES`] are not enough, and for numbers that are no rates. No number of lanes makes a wait of
/// nothing certain, so a target of 0 has none either, unless nothing comes.
pub fn lanes_needed(m: f64, c: f64, target_ms: u64) -> Option<u64> {
    let enough = |lanes| waiting(m, lanes, c).is_some_and(|waiting| waiting.mean_ms <= target_ms as f64);
    if !enough(MOST_LANES) || (target_ms == 0 && m > 0.0) {
        return None;
    }
    // The mean wait falls with every lane.
    let (mut too_few, mut fewest) = (0, MOST_LANES);
    while fewest - too_few > 1 {
        let between = too_few.midpoint(fewest);
        if enough(between) {
            fewest = between;
        } else {
            too_few = between;
        }
    }
    Some(fewest)
}

/// Erlang's C(n, a): the share of tasks that find all `lanes` busy, for a load a below n.
///
/// From his loss formula B(n, a) = (a^n/n!) / sum over k of a^k/k!, by C = 1 / ((1 - a/n)/B + a/n).
fn delayed(lanes: u64, load: f64) -> f64 {
    if load <= 0.0 {
        return 0.0;
    }
    let n = lanes as f64;
    (1.0 / ((n - load) / n * inverse_loss(lanes, load) + load / n)).min(1.0)
}

/// 1/B(n, a) = 1 + n/a + n(n-1)/a^2 + ...
///
/// Every part is positive, so nothing cancels. The parts grow while more than `a` lanes are left and vanish soon after, so
/// that some multiple of the square root of n is summed up. A sum beyond all numbers ends as infinity: nobody waits.
fn inverse_loss(lanes: u64, load: f64) -> f64 {
    let (mut left, mut part, mut sum) = (lanes as f64, 1.0_f64, 1.0_f64);
    while left > 0.0 && part > sum * NEGLIGIBLE && sum.is_finite() {
        part *= left / load;
        sum += part;
        left -= 1.0;
    }
    sum
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// C(n, a) from the recursion B(k) = a B(k-1) / (k + a B(k-1)), B(0) = 1: another way to the same number.
    fn by_recursion(lanes: u64, load: f64) -> f64 {
        let loss = (1..=lanes).fold(1.0, |loss, k| load * loss / (k as f64 + load * loss));
        lanes as f64 * loss / (lanes as f64 - load * (1.0 - loss))
    }

    fn close(left: f64, right: f64, share: f64) -> bool {
        (left - right).abs() <= share * left.abs().max(right.abs())
    }

    #[test]
    fn one_lane_waits_as_long_as_it_is_busy_and_two_as_can_be_reckoned_by_hand() {
        // M/M/1: C = a. M/M/2: C = a^2 / (2 + a).
        assert!(close(delayed(1, 0.75), 0.75, 1e-12));
        assert!(close(delayed(2, 1.5), 2.25 / 3.5, 1e-12));
        // Mean wait of M/M/1 at 3 a second and 4 a second: 0.75 / (4 - 3) s; p99 ln(0.75/0.01) / (4 - 3) s.
        let one = waiting(3.0, 1, 4.0).unwrap();
        assert!(close(one.mean_ms, 750.0, 1e-12));
        assert!(close(one.p99_ms, 1000.0 * 75_f64.ln(), 1e-12));
        assert!(close(one.p50_ms, 1000.0 * 1.5_f64.ln(), 1e-12));
    }

    #[test]
    fn half_the_tasks_do_not_wait_where_fewer_than_half_find_all_busy() {
        let six = waiting(40.0, 6, 10.0).unwrap();
        assert!(six.probability < 0.5 && six.p50_ms == 0.0 && six.p95_ms > 0.0 && six.p99_ms > six.p95_ms);
    }

    #[test]
    fn many_lanes_are_reckoned_as_the_recursion_does_and_at_once() {
        for (lanes, load) in [(100, 80.0), (10_000, 9_900.0), (100_000, 99_500.0), (1_000_000, 999_000.0)] {
            assert!(close(delayed(lanes, load), by_recursion(lanes, load), 1e-8), "{lanes} {load}");
        }
        // Far from busy and all but busy: nothing overflows.
        assert_eq!(delayed(MOST_LANES, 1.0), 0.0);
        assert!(delayed(MOST_LANES, 999_999.999) > 0.99);
    }

    #[test]
    fn there_is_no_prediction_without_balance() {
        for (m, lanes, c) in [(10.0, 1, 10.0), (11.0, 1, 10.0), (1.0, 0, 1.0), (0.0, 0, 1.0), (1.0, 1, 0.0)] {
            assert_eq!(waiting(m, lanes, c), None, "{m} {lanes} {c}");
        }
        assert_eq!(waiting(0.0, 1, 1.0).unwrap().mean_ms, 0.0);
        assert_eq!(waiting(1.0, MOST_LANES + 1, 1.0), None);
    }

    #[test]
    fn the_lanes_needed_are_the_fewest() {
        // 40 a second, 100 ms each: four lanes are busy, five are the fewest that keep up, and they make 55.4 ms of wait.
        assert_eq!(lanes_needed(40.0, 10.0, 1_000_000), Some(5));
        assert_eq!(lanes_needed(40.0, 10.0, 56), Some(5));
        assert_eq!(lanes_needed(40.0, 10.0, 55), Some(6));
        assert_eq!(lanes_needed(40.0, 10.0, 14), Some(7));
        assert_eq!(lanes_needed(40.0, 10.0, 0), None);
        assert_eq!(lanes_needed(0.0, 10.0, 0), Some(1));
        assert_eq!(lanes_needed(2e6, 1.0, 1000), None);
    }

    proptest! {
        #[test]
        fn the_sum_and_the_recursion_agree(lanes in 1_u64..2000, share in 0.01_f64..0.999) {
            let load = lanes as f64 * share;
            let (sum, recursion) = (delayed(lanes, load), by_recursion(lanes, load));
            prop_assert!(close(sum, recursion, 1e-9) || recursion < 1e-290, "{sum} {recursion}");
        }

        #[test]
        fn one_lane_fewer_than_needed_is_too_few(m in 0.01_f64..2000.0, c in 0.01_f64..50.0, target in 1_u64..5000) {
            let needed = lanes_needed(m, c, target).unwrap();
            prop_assert!(waiting(m, needed, c).unwrap().mean_ms <= target as f64);
            let fewer = waiting(m, needed - 1, c);
            prop_assert!(fewer.is_none_or(|waiting| waiting.mean_ms > target as f64));
        }

        #[test]
        fn every_answer_is_finite(m in any::<f64>(), c in any::<f64>(), lanes in any::<u64>(), bits in 0_u32..64) {
            for (m, c) in [(m, c), (m.abs(), c.abs())] {
                if let Some(Waiting { probability, mean_ms, p50_ms, p95_ms, p99_ms }) = waiting(m, lanes >> bits, c) {
                    prop_assert!((0.0..=1.0).contains(&probability));
                    prop_assert!(mean_ms.is_finite() && mean_ms >= 0.0);
                    prop_assert!(0.0 <= p50_ms && p50_ms <= p95_ms && p95_ms <= p99_ms && p99_ms.is_finite());
                }
                let needed = lanes_needed(m, c, lanes >> bits);
                prop_assert!(needed.is_none_or(|needed| (1..=MOST_LANES).contains(&needed)));
            }
        }
    }
}
