//! Random tasks, and their replay: their waits with a fixed number of equal executors, first come first served.
//!
//! A replay knows the arrival and the duration of each task, and uses no formula. Predictions and measurements are
//! compared with it.

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::time::Duration;

use rand::rngs::StdRng;
use rand::{RngExt as _, SeedableRng as _};

/// A task: its arrival, from the start, and its duration.
#[derive(Clone, Copy, Debug)]
pub struct Draw {
    pub comes: Duration,
    pub takes: Duration,
}

/// The distribution of durations.
#[derive(Clone, Copy, Debug)]
pub enum Work {
    /// Exponentially distributed, with this mean.
    Exponential(Duration),
    /// Fixed.
    Fixed(Duration),
}

/// Draws an endless Poisson process of `per_second` arrivals on average: the times between them are exponentially
/// distributed. The seed determines all draws.
pub fn poisson(seed: u64, per_second: f64, work: Work) -> impl Iterator<Item = Draw> {
    let mut rng = StdRng::seed_from_u64(seed);
    let mut comes = Duration::ZERO;
    std::iter::repeat_with(move || {
        // The random number is below 1, so the argument of the logarithm is positive.
        let mut exponential = |mean: Duration| mean.mul_f64(-(1.0 - rng.random::<f64>()).ln());
        comes += exponential(Duration::from_secs_f64(1.0 / per_second));
        let takes = match work {
            Work::Exponential(mean) => exponential(mean),
            Work::Fixed(always) => always,
        };
        Draw { comes, takes }
    })
}

/// The results of a replay.
#[derive(Debug)]
pub struct Replay {
    /// The wait of each task, in order of arrival.
    pub waits: Vec<Duration>,
    /// The total duration of all tasks.
    pub work: Duration,
    /// Arrivals per second of the window.
    pub m: f64,
    /// Tasks per second of one busy executor.
    pub c: f64,
    /// The total duration as a share of the executors' time in the window.
    pub utilisation: f64,
}

impl Replay {
    /// Replays the draws, which arrived within `window`: each task starts on the executor that is free first.
    pub fn of(draws: &[Draw], concurrency: usize, window: Duration) -> Self {
        let mut free: BinaryHeap<Reverse<Duration>> = vec![Reverse(Duration::ZERO); concurrency].into();
        let mut waits = Vec::with_capacity(draws.len());
        let mut work = Duration::ZERO;
        for draw in draws {
            let mut executor = free.peek_mut().expect("an executor");
            let starts = executor.0.max(draw.comes);
            executor.0 = starts + draw.takes;
            waits.push(starts - draw.comes);
            work += draw.takes;
        }
        let count = draws.len() as f64;
        Replay {
            waits,
            work,
            m: count / window.as_secs_f64(),
            c: count / work.as_secs_f64(),
            utilisation: work.as_secs_f64() / (concurrency as f64 * window.as_secs_f64()),
        }
    }

    /// The mean wait of all tasks, ms.
    pub fn mean_wait_ms(&self) -> f64 {
        self.waits.iter().sum::<Duration>().as_secs_f64() * 1000.0 / self.waits.len() as f64
    }

    /// The share of tasks that waited.
    pub fn waited(&self) -> f64 {
        self.waits.iter().filter(|wait| !wait.is_zero()).count() as f64 / self.waits.len() as f64
    }

    /// The `q` quantile of the waits, ms.
    pub fn quantile_ms(&self, q: f64) -> f64 {
        let mut waits = self.waits.clone();
        let rank = (q * waits.len() as f64).ceil() as usize;
        let (_, wait, _) = waits.select_nth_unstable(rank.saturating_sub(1));
        wait.as_secs_f64() * 1000.0
    }
}
