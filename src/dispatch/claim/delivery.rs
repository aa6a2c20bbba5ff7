//! Tasks on their way to a client. Until it has taken them they are on loan: dropped, they go back.

use std::sync::Arc;

use tokio_util::task::TaskTracker;

use crate::dispatch::batched_ops;
use crate::dispatch::batcher::Batcher;
use crate::dispatch::metrics::Metrics;
use crate::dispatch::task_spans::WaitSpans;
use crate::domain::task::ClaimedTask;
use crate::store::Store;
use crate::store::ops::release::Release;
use crate::store::ops::{LeaseEnd, LeaseRef};

/// Gives tasks back for those who can no longer take them.
#[derive(Debug)]
pub(in crate::dispatch) struct UndeliveredReleaser {
    releases: Batcher<batched_ops::Release>,
    metrics: Arc<Metrics>,
    tasks: TaskTracker,
}

impl UndeliveredReleaser {
    pub(in crate::dispatch) fn new(store: &Store, metrics: &Arc<Metrics>, tasks: &TaskTracker) -> Arc<Self> {
        Arc::new(UndeliveredReleaser {
            releases: Batcher::new(store, tasks),
            metrics: metrics.clone(),
            tasks: tasks.clone(),
        })
    }

    fn release_all(self: &Arc<Self>, undelivered: Vec<ClaimedTask>) {
        for task in undelivered {
            let releaser = self.clone();
            self.tasks.spawn(async move {
                let lease = LeaseRef { id: task.id, lease: Some(task.lease) };
                match releaser.releases.send(task.id.slot(), Release { held: lease, delay_ms: 0 }).await {
                    Ok(LeaseEnd::Done { .. }) => {
                        releaser.metrics.counters.undelivered_leases_released.inc();
                        tracing::debug!(task = %task.id, "given back: nobody took it");
                    }
                    Ok(LeaseEnd::LeaseLost(_) | LeaseEnd::Unknown) => {
                        tracing::debug!(task = %task.id, "nobody took it, and its lease has ended already");
                    }
                    // Its lease will run out.
                    Err(error) => tracing::warn!(task = %task.id, %error, "a task could not be given back"),
                }
            });
        }
    }
}

/// Claimed tasks. Dropped before [`Delivery::take`], they are given back at once, uncounted.
#[derive(Debug, Default)]
pub struct Delivery {
    tasks: Vec<ClaimedTask>,
    releaser: Option<Arc<UndeliveredReleaser>>,
    wait_spans: Option<Box<WaitSpans>>,
}

impl Delivery {
    pub(in crate::dispatch) fn new(tasks: Vec<ClaimedTask>, releaser: &Arc<UndeliveredReleaser>) -> Self {
        Delivery { tasks, releaser: Some(releaser.clone()), wait_spans: None }
    }

    /// What an earlier claim got: another answer with the same may be under way, so it is not taken from under it.
    pub(in crate::dispatch) fn resumed(tasks: Vec<ClaimedTask>) -> Self {
        Delivery { tasks, releaser: None, wait_spans: None }
    }

    /// The tasks.
    pub fn tasks(&self) -> &[ClaimedTask] {
        &self.tasks
    }

    /// With the waits that end when it is taken.
    pub(in crate::dispatch) fn set_wait_spans(&mut self, wait_spans: Option<Box<WaitSpans>>) {
        self.wait_spans = wait_spans;
    }

    /// The client has them.
    pub fn take(&mut self) {
        self.releaser = None;
        if let Some(wait_spans) = self.wait_spans.take() {
            wait_spans.send();
        }
    }
}

impl Drop for Delivery {
    fn drop(&mut self) {
        if let Some(releaser) = self.releaser.take() {
            releaser.release_all(std::mem::take(&mut self.tasks));
        }
    }
}
