//! Tasks on their way to a client. Until it has taken them they are on loan: dropped, they go back.

use std::sync::Arc;

use tokio_util::task::TaskTracker;

use super::followed::Waits;
use super::gather::Gather;
use super::meters::Meters;
use super::verbs;
use crate::domain::task::Claimed;
use crate::store::Store;
use crate::store::ops::release::Release;
use crate::store::ops::{Ended, Held};

/// Gives tasks back for those who can no longer take them.
#[derive(Debug)]
pub(super) struct GiveBack {
    releases: Gather<verbs::Release>,
    meters: Arc<Meters>,
    tasks: TaskTracker,
}

impl GiveBack {
    pub(super) fn new(store: &Store, meters: &Arc<Meters>, tasks: &TaskTracker) -> Arc<Self> {
        Arc::new(GiveBack { releases: Gather::new(store, tasks), meters: meters.clone(), tasks: tasks.clone() })
    }

    fn give_back(self: &Arc<Self>, claimed: Vec<Claimed>) {
        for task in claimed {
            let own = self.clone();
            self.tasks.spawn(async move {
                let held = Held { id: task.id, lease: Some(task.lease) };
                match own.releases.send(task.id.slot(), Release { held, delay_ms: 0 }).await {
                    Ok(Ended::Done { .. }) => {
                        own.meters.given_back.one();
                        tracing::debug!(task = %task.id, "given back: nobody took it");
                    }
                    Ok(Ended::Lost(_) | Ended::Unknown) => {
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
    tasks: Vec<Claimed>,
    give_back: Option<Arc<GiveBack>>,
    waits: Option<Box<Waits>>,
}

impl Delivery {
    pub(super) fn new(tasks: Vec<Claimed>, give_back: &Arc<GiveBack>) -> Self {
        Delivery { tasks, give_back: Some(give_back.clone()), waits: None }
    }

    /// What an earlier claim got: another answer with the same may be under way, so it is not taken from under it.
    pub(super) fn again(tasks: Vec<Claimed>) -> Self {
        Delivery { tasks, give_back: None, waits: None }
    }

    /// The tasks.
    pub fn tasks(&self) -> &[Claimed] {
        &self.tasks
    }

    /// With the waits that end when it is taken.
    pub(super) fn end_with(&mut self, waits: Option<Box<Waits>>) {
        self.waits = waits;
    }

    /// The client has them.
    pub fn take(&mut self) {
        self.give_back = None;
        if let Some(waits) = self.waits.take() {
            waits.end();
        }
    }
}

impl Drop for Delivery {
    fn drop(&mut self) {
        if let Some(give_back) = self.give_back.take() {
            give_back.give_back(std::mem::take(&mut self.tasks));
        }
    }
}
