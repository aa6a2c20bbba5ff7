//! Figures for choosing the number of workers, computed from the counters of a window.
//!
//! A figure without a measurement is `None`, never 0. Every other figure is finite. docs/model.md explains the figures
//! and their limits.

use super::erlang::{self, WaitPrediction};

/// Counters of a window and the state at its end, of one queue or in total.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub struct Inputs {
    /// Length of the window, ms.
    pub window_ms: u64,
    /// Tasks submitted in the window.
    pub submitted: u64,
    /// Leases that ended in the window and left their task ready or scheduled.
    pub returned: u64,
    /// Leases that ended in the window, for any reason.
    pub ended: u64,
    /// Total duration of those leases, ms.
    pub lease_ms: u64,
    /// Total effective concurrency of the live workers.
    pub concurrency: u64,
    /// Ready tasks.
    pub ready: u64,
    /// Leased tasks.
    pub leased: u64,
    /// Whether claims deliver no tasks of this queue.
    pub paused: bool,
}

/// The computed figures.
#[derive(Clone, Copy, PartialEq, Debug)]
pub struct Throughput {
    /// Tasks submitted per second.
    pub m: Option<f64>,
    /// Total effective concurrency of the live workers.
    pub n: u64,
    /// Tasks ended per second by one busy unit of concurrency: leases ended per second of lease time.
    ///
    /// `None` if no lease ended, or if the leases lasted less than 1 ms in total. `None` also without live workers:
    /// leases that end then have expired, and their duration is not a speed.
    pub c: Option<f64>,
    /// m*n/c, as in the article that Slotwheel is based on.
    pub s: Option<f64>,
    /// (m+r)/c, in Erlangs: the mean number of leased tasks if the concurrency is sufficient. r is the rate of leases that
    /// leave their task ready or scheduled: each of these arrives once more.
    pub offered_load: Option<f64>,
    /// (m+r)/(n*c): the share of the concurrency that is busy; from 1 on, the concurrency is too low.
    pub utilisation: Option<f64>,
    /// Whether tasks can end faster than they arrive: true without arrivals, false with arrivals and no live worker.
    pub stable: Option<bool>,
    /// Time until no task is ready, ms, at the current rates of arrivals and ends. `None` if never, unknown, or paused.
    pub time_to_drain_ms: Option<f64>,
    /// Wait predicted by the M/M/n queue; `None` if it is not stable or not known.
    pub predicted: Option<WaitPrediction>,
    /// Lowest concurrency with a predicted mean wait within the target. 0 if no task arrives, is ready or is leased,
    /// even if the speed is unknown. `None` without a target, and if it is not known.
    pub concurrency_needed: Option<u64>,
}

impl Throughput {
    /// Computes all figures of a window. `target_wait_ms` is the desired mean wait.
    pub fn compute(inputs: &Inputs, target_wait_ms: Option<u64>) -> Self {
        let Inputs { window_ms, submitted, returned, ended, lease_ms, concurrency, ready, leased, paused } = *inputs;
        let n = concurrency as f64;
        let m = ratio(submitted as f64 * 1000.0, window_ms as f64);
        let arrivals = m.zip(ratio(returned as f64 * 1000.0, window_ms as f64)).map(|(m, returns)| m + returns);
        let c = ratio(ended as f64 * 1000.0, lease_ms as f64).filter(|c| concurrency > 0 && *c > 0.0);
        let rates = arrivals.zip(c);
        let offered_load = rates.and_then(|(arrivals, c)| ratio(arrivals, c));
        let utilisation = offered_load.and_then(|load| ratio(load, n));
        let stable = match arrivals {
            Some(arrivals) if arrivals <= 0.0 => Some(true),
            Some(_) if concurrency == 0 => Some(false),
            _ => utilisation.map(|utilisation| utilisation < 1.0),
        };
        let drain_time_ms = |(arrivals, c): (f64, f64)| ratio(ready as f64 * 1000.0, n * c - arrivals);
        let is_idle = arrivals.is_some_and(|arrivals| arrivals <= 0.0) && ready == 0 && leased == 0;
        let needed_for = |target| {
            if is_idle {
                Some(0)
            } else {
                rates.and_then(|(arrivals, c)| erlang::concurrency_needed(arrivals, c, target))
            }
        };
        Throughput {
            m,
            n: concurrency,
            c,
            s: m.zip(c).and_then(|(m, c)| ratio(m * n, c)),
            offered_load,
            utilisation,
            stable,
            time_to_drain_ms: if ready == 0 { Some(0.0) } else { rates.filter(|_| !paused).and_then(drain_time_ms) },
            predicted: rates
                .filter(|_| stable == Some(true))
                .and_then(|(arrivals, c)| erlang::predict_wait(arrivals, concurrency, c)),
            concurrency_needed: target_wait_ms.and_then(needed_for),
        }
    }
}

/// Returns `part / whole` if `whole` is positive and the quotient finite.
fn ratio(part: f64, whole: f64) -> Option<f64> {
    let quotient = part / whole;
    (whole > 0.0 && quotient.is_finite()).then_some(quotient)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// A minute with 40 tasks per second of 100 ms each, and a concurrency of 6.
    const MINUTE: Inputs = Inputs {
        window_ms: 60_000,
        submitted: 2400,
        returned: 0,
        ended: 2400,
        lease_ms: 240_000,
        concurrency: 6,
        ready: 10,
        leased: 4,
        paused: false,
    };

    #[test]
    fn figures_of_a_minute_are_computed() {
        let throughput = Throughput::compute(&MINUTE, Some(20));
        assert_eq!((throughput.m, throughput.n, throughput.c), (Some(40.0), 6, Some(10.0)));
        assert_eq!((throughput.s, throughput.offered_load, throughput.stable), (Some(24.0), Some(4.0), Some(true)));
        assert!((throughput.utilisation.unwrap() - 2.0 / 3.0).abs() < 1e-12);
        // 10 ready tasks and 20 tasks/s of spare rate.
        assert_eq!((throughput.time_to_drain_ms, throughput.concurrency_needed), (Some(500.0), Some(6)));
        assert_eq!(throughput.predicted, erlang::predict_wait(40.0, 6, 10.0));
        assert!(throughput.predicted.is_some() && Throughput::compute(&MINUTE, None).concurrency_needed.is_none());
    }

    #[test]
    fn queue_without_workers_has_no_capacity_and_is_unstable() {
        let throughput = Throughput::compute(&Inputs { concurrency: 0, ..MINUTE }, Some(20));
        assert_eq!((throughput.m, throughput.n, throughput.c, throughput.s), (Some(40.0), 0, None, None));
        assert_eq!((throughput.stable, throughput.time_to_drain_ms), (Some(false), None));
        assert_eq!((throughput.offered_load, throughput.utilisation), (None, None));
        assert_eq!((throughput.predicted, throughput.concurrency_needed), (None, None));
    }

    #[test]
    fn queue_without_ended_tasks_has_no_known_capacity() {
        for inputs in [Inputs { ended: 0, lease_ms: 0, ..MINUTE }, Inputs { lease_ms: 0, ..MINUTE }] {
            let throughput = Throughput::compute(&inputs, Some(20));
            assert_eq!((throughput.m, throughput.n, throughput.c), (Some(40.0), 6, None));
            assert_eq!((throughput.s, throughput.stable, throughput.time_to_drain_ms), (None, None, None));
        }
    }

    #[test]
    fn queue_without_arrivals_is_stable_and_needs_one_executor_if_filled() {
        let idle = Inputs { submitted: 0, ready: 0, leased: 0, ..MINUTE };
        let throughput = Throughput::compute(&idle, Some(20));
        assert_eq!((throughput.m, throughput.s, throughput.utilisation), (Some(0.0), Some(0.0), Some(0.0)));
        assert_eq!((throughput.stable, throughput.concurrency_needed), (Some(true), Some(0)));
        assert_eq!((throughput.time_to_drain_ms, throughput.predicted.unwrap().mean_ms), (Some(0.0), 0.0));
        // Neither ended leases nor live workers are required.
        for inputs in [Inputs { ended: 0, lease_ms: 0, ..idle }, Inputs { concurrency: 0, ..idle }] {
            let throughput = Throughput::compute(&inputs, Some(20));
            assert_eq!((throughput.c, throughput.concurrency_needed, throughput.stable), (None, Some(0), Some(true)));
        }
        assert_eq!(Throughput::compute(&Inputs { ready: 1, ..idle }, Some(20)).concurrency_needed, Some(1));
        assert_eq!(Throughput::compute(&Inputs { leased: 1, ..idle }, Some(20)).concurrency_needed, Some(1));
        assert_eq!(Throughput::compute(&Inputs { window_ms: 60_000, ..Inputs::default() }, None).stable, Some(true));
    }

    #[test]
    fn paused_queue_does_not_drain() {
        let paused = Inputs { paused: true, ..MINUTE };
        assert_eq!(Throughput::compute(&paused, None).time_to_drain_ms, None);
        assert_eq!(Throughput::compute(&Inputs { ready: 0, ..paused }, None).time_to_drain_ms, Some(0.0));
    }

    #[test]
    fn growing_queue_never_drains() {
        let overloaded = Inputs { submitted: 3600, ..MINUTE };
        let throughput = Throughput::compute(&overloaded, Some(20));
        assert_eq!((throughput.utilisation, throughput.stable), (Some(1.0), Some(false)));
        assert_eq!((throughput.time_to_drain_ms, throughput.predicted), (None, None));
        assert!(throughput.concurrency_needed.is_some_and(|needed| needed > 6));
    }

    #[test]
    fn task_of_two_leases_offers_the_load_of_two() {
        let retried = Inputs { returned: 2400, ended: 4800, lease_ms: 480_000, ..MINUTE };
        let throughput = Throughput::compute(&retried, None);
        assert_eq!((throughput.m, throughput.c, throughput.s), (Some(40.0), Some(10.0), Some(24.0)));
        assert_eq!((throughput.offered_load, throughput.stable), (Some(8.0), Some(false)));
        assert_eq!(Throughput::compute(&Inputs { concurrency: 9, ..retried }, None).stable, Some(true));
        // Releases of leases that lasted no time add no load.
        let released = Inputs { returned: 2400, ended: 4800, ..MINUTE };
        assert_eq!(Throughput::compute(&released, None).offered_load, Some(4.0));
    }

    #[test]
    fn empty_window_has_no_figures() {
        let throughput = Throughput::compute(&Inputs { window_ms: 0, ..MINUTE }, Some(20));
        assert_eq!(
            (throughput.m, throughput.s, throughput.stable, throughput.time_to_drain_ms),
            (None, None, None, None)
        );
    }

    /// Counts of every magnitude with equal weight, including 0.
    fn counts() -> impl Strategy<Value = u64> {
        (0_u32..=64, any::<u64>()).prop_map(|(bits, any)| any.checked_shr(64 - bits).unwrap_or(0))
    }

    proptest! {
        #[test]
        fn figures_are_finite_and_not_negative(
            [window_ms, submitted, returned, ended, lease_ms] in [counts(), counts(), counts(), counts(), counts()],
            [concurrency, ready, leased, target] in [counts(), counts(), counts(), counts()],
            paused in any::<bool>(),
        ) {
            let inputs = Inputs { window_ms, submitted, returned, ended, lease_ms, concurrency, ready, leased, paused };
            let throughput = Throughput::compute(&inputs, Some(target));
            let Throughput { m, n, c, s, offered_load, utilisation, stable, time_to_drain_ms, predicted, .. } = throughput;
            let waiting = predicted.map(|wait| [wait.probability, wait.mean_ms, wait.p50_ms, wait.p95_ms, wait.p99_ms]);
            let numbers = [m, c, s, offered_load, utilisation, time_to_drain_ms].into_iter().flatten();
            for number in numbers.chain(waiting.into_iter().flatten()) {
                prop_assert!(number.is_finite() && number >= 0.0, "{throughput:?}");
            }
            prop_assert_eq!(n, concurrency);
            prop_assert!(concurrency > 0 || (c.is_none() && s.is_none()));
            prop_assert!(predicted.is_none() || stable == Some(true));
            prop_assert!(m.is_none_or(|m| m <= 0.0) || concurrency > 0 || stable == Some(false));
        }
    }
}
