//! Claimed tasks on their way to a client. Until the client has received them, dropping them releases them.

use std::sync::Arc;

use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::dispatch::batched_ops;
use crate::dispatch::batcher::Batcher;
use crate::dispatch::metrics::Metrics;
use crate::dispatch::task_spans::WaitSpans;
use crate::domain::task::ClaimedTask;
use crate::store::Store;
use crate::store::ops::release::{Release, Releaser};
use crate::store::ops::{LeaseEnd, LeaseRef};

/// Releases tasks that no client received.
#[derive(Debug)]
pub(in crate::dispatch) struct UndeliveredReleaser {
    releases: Batcher<batched_ops::Release>,
    metrics: Arc<Metrics>,
    tasks: TaskTracker,
}

impl UndeliveredReleaser {
    pub(super) fn new(
        store: &Store,
        metrics: &Arc<Metrics>,
        tasks: &TaskTracker,
        stop: &CancellationToken,
    ) -> Arc<Self> {
        let releases = Batcher::new(store, (), tasks, stop);
        Arc::new(UndeliveredReleaser { releases, metrics: metrics.clone(), tasks: tasks.clone() })
    }

    /// Each slot gets its turn back. The last task goes first, so that the first is the next to be claimed.
    pub(super) fn release_all(self: &Arc<Self>, undelivered: Vec<LeaseRef>) {
        let releaser = self.clone();
        self.tasks.spawn(async move {
            let release =
                |lease: &LeaseRef| Release { lease_ref: lease.clone(), by: Releaser::Undelivered, delay_ms: 0 };
            let outcomes = releaser.releases.send_all(undelivered.iter().rev().map(release).collect()).await;
            for (task, outcome) in undelivered.iter().rev().zip(outcomes) {
                match outcome {
                    Ok(LeaseEnd::Done { .. }) => {
                        releaser.metrics.counters.undelivered_leases_released.inc();
                        tracing::debug!(task = %task.id, "undelivered task released");
                    }
                    Ok(LeaseEnd::LeaseLost(_) | LeaseEnd::Unknown) => {
                        tracing::debug!(task = %task.id, "undelivered task not released: its lease has ended");
                    }
                    // The lease expires.
                    Err(error) => tracing::warn!(task = %task.id, %error, "releasing an undelivered task failed"),
                }
            }
        });
    }
}

/// Claimed tasks. Dropping them before [`Delivery::mark_delivered`] releases them without counting an attempt.
#[derive(Debug, Default)]
pub struct Delivery {
    tasks: Vec<ClaimedTask>,
    releaser: Option<Arc<UndeliveredReleaser>>,
    wait_spans: Option<Box<WaitSpans>>,
}

impl Delivery {
    pub(super) fn new(tasks: Vec<ClaimedTask>, releaser: &Arc<UndeliveredReleaser>) -> Self {
        Delivery { tasks, releaser: Some(releaser.clone()), wait_spans: None }
    }

    /// Tasks that an earlier claim of the same id leased. Dropping them releases nothing, because another response may
    /// carry them.
    pub(super) fn resumed(tasks: Vec<ClaimedTask>) -> Self {
        Delivery { tasks, releaser: None, wait_spans: None }
    }

    /// The tasks.
    pub fn tasks(&self) -> &[ClaimedTask] {
        &self.tasks
    }

    /// Sets the spans to send on delivery.
    pub(super) fn set_wait_spans(&mut self, wait_spans: Option<Box<WaitSpans>>) {
        self.wait_spans = wait_spans;
    }

    /// Records that the client has received the tasks.
    pub fn mark_delivered(&mut self) {
        self.releaser = None;
        if let Some(wait_spans) = self.wait_spans.take() {
            wait_spans.send();
        }
    }
}

impl Drop for Delivery {
    fn drop(&mut self) {
        if let Some(releaser) = self.releaser.take() {
            let leases = self.tasks.iter().map(|task| LeaseRef { id: task.id, lease: Some(task.lease) });
            releaser.release_all(leases.collect());
        }
    }
}
