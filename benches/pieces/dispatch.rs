//! Waiters of one shard and the steps of its claim loop, for `make pieces`. Compiled for that only.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;

use tokio_util::sync::CancellationToken;

use super::ClaimRequest;
use super::claim::delivery::Delivery;
use super::claim::wait_handle::WaitHandle;
use super::claim::waiters::{ClaimBatch, Waiters};
use crate::domain::queue::QueueName;
use crate::store::ops::claim::Front;

/// The shard.
const SHARD: usize = 0;
/// The priority of a ready task.
const PRIORITY: u8 = 4;

/// Waiters of one queue, in order of arrival.
#[derive(Debug)]
pub struct WaiterCrowd {
    waiters: Arc<Waiters>,
    queue: QueueName,
    handles: VecDeque<WaitHandle>,
}

impl WaiterCrowd {
    /// Returns `count` waiters that no call has included yet.
    pub fn new(count: usize) -> Self {
        let queue = QueueName::default_queue();
        let waiters = Arc::new(Waiters::new(1, &CancellationToken::new()));
        let mut crowd = WaiterCrowd { waiters, queue, handles: VecDeque::new() };
        (0..count).for_each(|_| crowd.add());
        crowd
    }

    /// Runs calls that find no task until all waiters are idle.
    pub fn idle_all(&mut self) {
        while let Some(batch) = self.waiters.take_batch(SHARD) {
            self.return_empty(&batch);
        }
    }

    fn return_empty(&self, batch: &ClaimBatch) {
        self.waiters.return_batch(SHARD, batch, &[(0, Front::Empty)], false, &BTreeMap::new());
    }

    /// Adds a waiter.
    pub fn add(&mut self) {
        let queues = vec![self.queue.clone()];
        let request = ClaimRequest { queues, max: 1, lease_ms: 30_000, worker: "worker".into(), claim_id: None };
        self.handles.push_back(self.waiters.register(request.into(), true, None).0);
    }

    /// Removes the latest waiter.
    pub fn remove_last(&mut self) {
        drop(self.handles.pop_back());
    }

    /// Takes a batch and returns it as a truncated call does. Returns its number of waiters.
    pub fn take_and_return(&self) -> usize {
        let Some(batch) = self.waiters.take_batch(SHARD) else { return 0 };
        self.waiters.return_batch(SHARD, &batch, &[], true, &BTreeMap::new());
        batch.ids.len()
    }

    /// Delivers to the first idle waiter after a wake-up, and adds another. Returns the number of waiters in the call.
    pub fn serve_first(&mut self) -> usize {
        self.waiters.on_wakeup(SHARD, &self.queue, PRIORITY);
        let Some(batch) = self.waiters.take_batch(SHARD) else { return 0 };
        if let Some(first) = batch.ids.first() {
            self.waiters.deliver(*first, Delivery::default());
        }
        self.return_empty(&batch);
        drop(self.handles.pop_front());
        self.add();
        self.idle_all();
        batch.ids.len()
    }
}
