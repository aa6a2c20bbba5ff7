//! A job of upkeep: its name, interval, scope and function.

use std::time::Duration;

use futures_util::future::BoxFuture;

use crate::domain::time::TimestampMs;
use crate::spans::Spans;
use crate::store::dataset::loss_detector::LossDetector;
use crate::store::views::next_due::NextDue;
use crate::store::{Caller, Result, Shard, Store};

/// A job of upkeep.
pub(super) struct Job {
    /// Name in logs and metrics.
    pub(super) name: &'static str,
    pub(super) interval: Interval,
    pub(super) scope: Scope,
    pub(super) run: for<'a> fn(&'a mut Context) -> BoxFuture<'a, Result<()>>,
}

/// When a job runs.
#[derive(Clone, Copy)]
pub(super) enum Interval {
    /// When this time of a shard has passed: checked at that time, at a wake-up, and at each poll interval.
    WhenDue(fn(&NextDue) -> Option<TimestampMs>),
    /// Periodically, with pauses of 0.8 to 1.0 of this time.
    Every(Duration),
}

/// Coverage of one loop of a job.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Scope {
    /// One shard: there is a loop for each.
    Shard,
    /// All shards.
    Server,
}

/// State of one loop, passed to its jobs.
pub(super) struct Context {
    pub(super) store: Store,
    /// The shard of a loop with [`Scope::Shard`]; otherwise the first shard.
    pub(super) shard: Shard,
    pub(super) caller: Caller,
    pub(super) spans: Spans,
    pub(super) loss_detector: LossDetector,
    /// The state that made the current run due. `None` for a job with [`Interval::Every`].
    pub(super) next_due: Option<NextDue>,
}
