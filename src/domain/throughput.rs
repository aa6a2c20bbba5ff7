//! The figures by which people decide how many workers to run, from what was counted over a window.
//!
//! What was not measured is `None`, never a zero that somebody made up; what is there is a finite number. What each figure
//! says, and what it does not, is in docs/model.md.

use super::erlang;
use super::erlang::WaitPrediction;

/// What was counted over a window, and what there is at its end; of a queue, or in total.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub struct Inputs {
    /// How long the window is, ms.
    pub window_ms: u64,
    /// Tasks submitted in it.
    pub submitted: u64,
    /// Leases that ended in it, in whatever way.
    pub ended: u64,
    /// How long those leases had lasted, together, ms.
    pub lease_ms: u64,
    /// Lanes of the workers that live.
    pub concurrency: u64,
    /// Tasks that are ready now.
    pub ready: u64,
    /// Tasks that are leased now.
    pub leased: u64,
    /// Whether nothing is handed out now.
    pub paused: bool,
}

/// What follows from it.
#[derive(Clone, Copy, PartialEq, Debug)]
pub struct Throughput {
    /// Tasks submitted per second.
    pub m: Option<f64>,
    /// Lanes of the workers that live.
    pub n: u64,
    /// Tasks that one lane ends per second while it is busy: leases ended per second of their lease time.
    ///
    /// `None` where none ended or all ended within the millisecond they began in; and without a lane, for it is the speed
    /// of the concurrency there are, and what ends when they have gone are leases that ran out.
    pub c: Option<f64>,
    /// m*n/c, as the article defines it that Slotwheel starts from.
    pub s: Option<f64>,
    /// m/c, in Erlangs: how many concurrency are busy on average, if there are enough.
    pub offered_load: Option<f64>,
    /// m/(n*c): the share of their time that the concurrency are busy; from 1 on, what they lack.
    pub utilisation: Option<f64>,
    /// Whether the concurrency end more than comes. Where nothing comes, they do; where something comes and there is none, they
    /// do not.
    pub stable: Option<bool>,
    /// How long until nothing is ready, ms, if all stays as it is. `None` if that is never, or not known, or while paused.
    pub time_to_drain_ms: Option<f64>,
    /// Waiting as the queue M/M/n has it; `None` where that is not stable, or not known.
    pub predicted: Option<WaitPrediction>,
    /// The fewest concurrency with which the predicted mean wait is within the target: none at all if nothing comes and nothing
    /// is ready or leased, however little is known of speed. `None` without a target, and where it is not known.
    pub concurrency_needed: Option<u64>,
}

impl Throughput {
    /// All figures of a window. `target_wait_ms` is the mean wait that is wanted.
    pub fn compute(inputs: &Inputs, target_wait_ms: Option<u64>) -> Self {
        let Inputs { window_ms, submitted, ended, lease_ms, concurrency, ready, leased, paused } = *inputs;
        let n = concurrency as f64;
        let m = ratio(submitted as f64 * 1000.0, window_ms as f64);
        let c = ratio(ended as f64 * 1000.0, lease_ms as f64).filter(|c| concurrency > 0 && *c > 0.0);
        let rates = m.zip(c);
        let offered_load = rates.and_then(|(m, c)| ratio(m, c));
        let utilisation = offered_load.and_then(|load| ratio(load, n));
        let stable = match m {
            Some(m) if m <= 0.0 => Some(true),
            Some(_) if concurrency == 0 => Some(false),
            _ => utilisation.map(|utilisation| utilisation < 1.0),
        };
        let drain_time_ms = |(m, c): (f64, f64)| ratio(ready as f64 * 1000.0, n * c - m);
        let is_idle = m.is_some_and(|m| m <= 0.0) && ready == 0 && leased == 0;
        let needed_for = |target| {
            if is_idle { Some(0) } else { rates.and_then(|(m, c)| erlang::concurrency_needed(m, c, target)) }
        };
        Throughput {
            m,
            n: concurrency,
            c,
            s: rates.and_then(|(m, c)| ratio(m * n, c)),
            offered_load,
            utilisation,
            stable,
            time_to_drain_ms: if ready == 0 { Some(0.0) } else { rates.filter(|_| !paused).and_then(drain_time_ms) },
            predicted: rates
                .filter(|_| stable == Some(true))
                .and_then(|(m, c)| erlang::predict_wait(m, concurrency, c)),
            concurrency_needed: target_wait_ms.and_then(needed_for),
        }
    }
}

/// `part / whole`, if `whole` is more than nothing and the outcome a number.
fn ratio(part: f64, whole: f64) -> Option<f64> {
    let quotient = part / whole;
    (whole > 0.0 && quotient.is_finite()).then_some(quotient)
}

#[cfg(test)]
mod tests {
    use crate::domain::throughput::*;
    use proptest::prelude::*;

    /// A minute in which 40 tasks a second came, and 6 concurrency took 100 ms for each.
    const MINUTE: Inputs = Inputs {
        window_ms: 60_000,
        submitted: 2400,
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
        // Ten tasks, and 20 a second more can be done than come.
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
        // Nor does it matter how long it has been so, and whether anybody is there.
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
    fn empty_window_has_no_figures() {
        let throughput = Throughput::compute(&Inputs { window_ms: 0, ..MINUTE }, Some(20));
        assert_eq!(
            (throughput.m, throughput.s, throughput.stable, throughput.time_to_drain_ms),
            (None, None, None, None)
        );
    }

    /// Counts of every size: as many small as large ones, and nothing.
    fn counts() -> impl Strategy<Value = u64> {
        (0_u32..=64, any::<u64>()).prop_map(|(bits, any)| any.checked_shr(64 - bits).unwrap_or(0))
    }

    proptest! {
        #[test]
        fn figures_are_finite_and_not_negative(
            [window_ms, submitted, ended, lease_ms] in [counts(), counts(), counts(), counts()],
            [concurrency, ready, leased, target] in [counts(), counts(), counts(), counts()],
            paused in any::<bool>(),
        ) {
            let inputs = Inputs { window_ms, submitted, ended, lease_ms, concurrency, ready, leased, paused };
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
