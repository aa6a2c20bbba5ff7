//! What `make pieces` measures of those who wait: a crowd in one shard, and the steps of its pump. Compiled for that
//! only.

use std::collections::VecDeque;
use std::sync::Arc;

use super::ClaimRequest;
use super::claim::delivery::Delivery;
use super::claim::waiters::{ClaimBatch, WaitHandle, Waiters};
use crate::domain::queue::QueueName;

/// The shard.
const SHARD: usize = 0;
/// Of what there is something.
const PRIORITY: u8 = 4;

/// Those who wait for one queue, in order of arrival.
#[derive(Debug)]
pub struct WaiterCrowd {
    waiters: Arc<Waiters>,
    queue: QueueName,
    handles: VecDeque<WaitHandle>,
}

impl WaiterCrowd {
    /// So many, none of whom has been looked for.
    pub fn new(count: usize) -> Self {
        let queue = QueueName::default_queue();
        let mut pool = WaiterCrowd { waiters: Arc::new(Waiters::new(1)), queue, handles: VecDeque::new() };
        (0..count).for_each(|_| pool.add());
        pool
    }

    /// All of them are looked for and find nothing: they rest.
    pub fn rest(&mut self) {
        while let Some(batch) = self.waiters.take_batch(SHARD) {
            self.return_empty(&batch);
        }
    }

    fn return_empty(&self, batch: &ClaimBatch) {
        self.waiters.return_batch(SHARD, batch, &[(0, None)], false);
    }

    /// One more comes.
    pub fn add(&mut self) {
        let queues = vec![self.queue.clone()];
        let request = ClaimRequest { queues, max: 1, lease_ms: 30_000, worker: "worker".into(), claim: None };
        self.handles.push_back(self.waiters.register(request, true));
    }

    /// The one who came last goes.
    pub fn remove_last(&mut self) {
        drop(self.handles.pop_back());
    }

    /// Those who are next are taken out, and put back as a call that did not get so far leaves them. Returns how many.
    pub fn take_and_return(&self) -> usize {
        let Some(batch) = self.waiters.take_batch(SHARD) else { return 0 };
        self.waiters.return_batch(SHARD, &batch, &[], true);
        batch.ids.len()
    }

    /// A hint comes and there is a task for the first of those who rest; another comes in its place. Returns how many
    /// were looked for.
    pub fn serve_first(&mut self) -> usize {
        self.waiters.on_wakeup(SHARD, &self.queue, PRIORITY);
        let Some(batch) = self.waiters.take_batch(SHARD) else { return 0 };
        if let Some(first) = batch.ids.first() {
            self.waiters.deliver(*first, Delivery::default());
        }
        self.return_empty(&batch);
        drop(self.handles.pop_front());
        self.add();
        self.rest();
        batch.ids.len()
    }
}
