//! The jobs of upkeep: those that run when work is due, and periodic ones.

use std::time::Duration;

use futures_util::future::BoxFuture;

use crate::domain::queue::QueueName;
use crate::domain::time::TimestampMs;
use crate::spans::Spans;
use crate::store::dataset::loss_detector::LossDetector;
use crate::store::permissions::PermissionMonitor;
use crate::store::views::next_due::NextDue;
use crate::store::{Caller, Result, Shard, Store};

/// A job that takes turns with other jobs and queues of a shard while work is due.
pub(super) struct DueJob {
    /// Name in logs and metrics.
    pub(super) name: &'static str,
    /// The time from which the job has work.
    pub(super) due_at: fn(&NextDue) -> Option<TimestampMs>,
    /// The index by time whose entries it takes.
    pub(super) index: Index,
    /// Takes one bounded step. Returns the number of entries that it took, or corrected.
    pub(super) step: for<'a> fn(&'a mut Context, &'a Turn) -> BoxFuture<'a, Result<usize>>,
}

/// The index by time whose entries a job takes.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Index {
    /// The index of this name, for all queues of a shard.
    OfShard(&'static str),
    /// `<name>:<queue>`, for each due queue.
    OfQueue(&'static str),
}

impl Index {
    /// Returns the key without the shard's base. `queue` is that of the turn.
    pub(super) fn key(self, queue: Option<&QueueName>) -> String {
        match (self, queue) {
            (Index::OfQueue(name), Some(queue)) => format!("{name}:{queue}"),
            (Index::OfQueue(name) | Index::OfShard(name), _) => name.to_owned(),
        }
    }
}

/// A periodic job.
pub(super) struct Job {
    /// Name in logs and metrics.
    pub(super) name: &'static str,
    /// The job pauses for 0.8 to 1.0 of this time.
    pub(super) interval: Duration,
    pub(super) scope: Scope,
    pub(super) run: for<'a> fn(&'a mut Context) -> BoxFuture<'a, Result<()>>,
}

/// Coverage of one loop of a periodic job.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Scope {
    /// One shard: there is a loop for each.
    Shard,
    /// All shards.
    Server,
}

/// A turn of a [`DueJob`].
#[derive(Clone, Debug)]
pub(super) struct Turn {
    /// The time in Redis.
    pub(super) now: TimestampMs,
    /// The queue whose turn it is. `None` for a job with [`Index::OfShard`].
    pub(super) queue: Option<QueueName>,
    /// The maximum number of entries.
    pub(super) limit: usize,
}

/// State of one loop, passed to its jobs.
pub(super) struct Context {
    pub(super) store: Store,
    /// The shard of a loop that covers one; otherwise the first shard.
    pub(super) shard: Shard,
    pub(super) caller: Caller,
    pub(super) spans: Spans,
    pub(super) loss_detector: LossDetector,
    /// The queue at which the last check of queues ended. `None`: all queues were checked.
    pub(super) last_checked: Option<QueueName>,
    /// Ended tasks that a queue keeps in each state; 0: no limit.
    pub(super) max_ended_per_queue: u64,
    pub(super) permissions: PermissionMonitor,
}
