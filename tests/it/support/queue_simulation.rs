//! Tasks drawn at random, and what equal lanes that serve them in order would make of them.
//!
//! A replay knows when tasks come and how long each takes, and nothing else: no formula is in it. It is what predictions
//! and measured figures are held against.

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::time::Duration;

use rand::rngs::StdRng;
use rand::{RngExt as _, SeedableRng as _};

/// A task: when it comes, counted from the start, and how long a lane works on it.
#[derive(Clone, Copy, Debug)]
pub struct Draw {
    pub comes: Duration,
    pub takes: Duration,
}

/// How long tasks take.
#[derive(Clone, Copy, Debug)]
pub enum Work {
    /// Exponentially distributed, with this mean.
    Exponential(Duration),
    /// Always this long.
    Fixed(Duration),
}

/// Tasks without end, `per_second` of them on average and independently of one another: the pauses between them are
/// exponentially distributed. The seed decides them all.
pub fn poisson(seed: u64, per_second: f64, work: Work) -> impl Iterator<Item = Draw> {
    let mut rng = StdRng::seed_from_u64(seed);
    let mut comes = Duration::ZERO;
    std::iter::repeat_with(move || {
        // A random number is never 1, so the logarithm is that of something.
        let mut exponential = |mean: Duration| mean.mul_f64(-(1.0 - rng.random::<f64>()).ln());
        comes += exponential(Duration::from_secs_f64(1.0 / per_second));
        let takes = match work {
            Work::Exponential(mean) => exponential(mean),
            Work::Fixed(always) => always,
        };
        Draw { comes, takes }
    })
}

/// What came of the draws.
#[derive(Debug)]
pub struct Replay {
    /// How long each task waited for a lane, in the order in which they came.
    pub waits: Vec<Duration>,
    /// The work of all tasks together.
    pub work: Duration,
    /// Tasks that came, per second of the window.
    pub m: f64,
    /// Tasks per second of work.
    pub c: f64,
    /// The work, as a share of what the lanes could do in the window.
    pub utilisation: f64,
}

impl Replay {
    /// Lets `lanes` serve the draws, which came within `window`: each task goes to the lane that is free first.
    pub fn of(draws: &[Draw], lanes: usize, window: Duration) -> Self {
        let mut free: BinaryHeap<Reverse<Duration>> = vec![Reverse(Duration::ZERO); lanes].into();
        let mut waits = Vec::with_capacity(draws.len());
        let mut work = Duration::ZERO;
        for draw in draws {
            let mut lane = free.peek_mut().expect("a lane");
            let starts = lane.0.max(draw.comes);
            lane.0 = starts + draw.takes;
            waits.push(starts - draw.comes);
            work += draw.takes;
        }
        let count = draws.len() as f64;
        Replay {
            waits,
            work,
            m: count / window.as_secs_f64(),
            c: count / work.as_secs_f64(),
            utilisation: work.as_secs_f64() / (lanes as f64 * window.as_secs_f64()),
        }
    }

    /// The mean wait of all tasks, ms.
    pub fn mean_wait_ms(&self) -> f64 {
        self.waits.iter().sum::<Duration>().as_secs_f64() * 1000.0 / self.waits.len() as f64
    }

    /// The share of the tasks that had to wait.
    pub fn waited(&self) -> f64 {
        self.waits.iter().filter(|wait| !wait.is_zero()).count() as f64 / self.waits.len() as f64
    }

    /// The wait that a share `q` of the tasks did not exceed, ms.
    pub fn quantile_ms(&self, q: f64) -> f64 {
        let mut waits = self.waits.clone();
        let rank = (q * waits.len() as f64).ceil() as usize;
        let (_, wait, _) = waits.select_nth_unstable(rank.saturating_sub(1));
        wait.as_secs_f64() * 1000.0
    }
}
