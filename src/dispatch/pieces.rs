//! What `make pieces` measures of those who wait: a crowd in one shard, and the steps of its pump. Compiled for that
//! only.

use std::collections::VecDeque;
use std::sync::Arc;

use super::Request;
use super::delivery::Delivery;
use super::waiters::{Batch, Registered, Waiters};
use crate::domain::queue::QueueName;

/// The shard.
const SHARD: usize = 0;
/// Of what there is something.
const PRIORITY: u8 = 4;

/// Those who wait for one queue, in order of arrival.
#[derive(Debug)]
pub struct Crowd {
    waiters: Arc<Waiters>,
    queue: QueueName,
    places: VecDeque<Registered>,
}

impl Crowd {
    /// So many, none of whom has been looked for.
    pub fn new(count: usize) -> Self {
        let queue = QueueName::default_queue();
        let mut crowd = Crowd { waiters: Arc::new(Waiters::new(1)), queue, places: VecDeque::new() };
        (0..count).for_each(|_| crowd.enter());
        crowd
    }

    /// All of them are looked for and find nothing: they rest.
    pub fn rest(&mut self) {
        while let Some(batch) = self.waiters.pull(SHARD) {
            self.find_nothing(&batch);
        }
    }

    fn find_nothing(&self, batch: &Batch) {
        self.waiters.put_back(SHARD, batch, &[(0, None)], false);
    }

    /// One more comes.
    pub fn enter(&mut self) {
        let queues = vec![self.queue.clone()];
        let request = Request { queues, max: 1, lease_ms: 30_000, worker: "worker".into(), claim: None };
        self.places.push_back(self.waiters.register(request, true));
    }

    /// The one who came last goes.
    pub fn leave(&mut self) {
        drop(self.places.pop_back());
    }

    /// Those who are next are taken out, and put back as a call that did not get so far leaves them. Returns how many.
    pub fn look(&self) -> usize {
        let Some(batch) = self.waiters.pull(SHARD) else { return 0 };
        self.waiters.put_back(SHARD, &batch, &[], true);
        batch.ids.len()
    }

    /// A hint comes and there is a task for the first of those who rest; another comes in its place. Returns how many
    /// were looked for.
    pub fn serve(&mut self) -> usize {
        self.waiters.hint(SHARD, &self.queue, PRIORITY);
        let Some(batch) = self.waiters.pull(SHARD) else { return 0 };
        if let Some(first) = batch.ids.first() {
            self.waiters.serve(*first, Delivery::default());
        }
        self.find_nothing(&batch);
        drop(self.places.pop_front());
        self.enter();
        self.rest();
        batch.ids.len()
    }
}
