//! The registration of a wait, and its survey. Dropping either ends it, also if a disconnect drops the request's future.

use std::sync::Arc;

use tokio::sync::oneshot;

use super::delivery::Delivery;
use super::shard_set::ShardSet;
use super::waiter::ClaimRequest;
use super::waiters::Waiters;
use crate::dispatch::batcher::closed;
use crate::store::Result;

impl Waiters {
    /// Adds a waiter at the end of the queue. If several shards may have tasks for it, no call includes it until its
    /// survey ends. A waiter that does not long-poll leaves out `checked`, a shard that was just checked for it.
    pub(in crate::dispatch) fn register(
        self: &Arc<Self>,
        request: Arc<ClaimRequest>,
        is_long_poll: bool,
        checked: Option<usize>,
    ) -> (WaitHandle, Option<Survey>) {
        let (reply, reply_receiver) = oneshot::channel();
        if is_long_poll {
            self.announce_soon(&request.queues);
        }
        let mut wait_queue = self.lock();
        let id = wait_queue.add(request, reply, is_long_poll);
        // A wake-up may have followed the check. For long polls the cache knows.
        if let Some(shard) = checked.filter(|_| !is_long_poll) {
            wait_queue.leave_out(id, shard);
        }
        let unchecked = wait_queue.waiters.get(&id).map(|waiter| &waiter.unchecked_shards);
        let survey = unchecked.filter(|shards| shards.len() > 1).map(|shards| Survey {
            waiters: self.clone(),
            id,
            shards: shards.clone(),
            read: ShardSet::default(),
        });
        if survey.is_some() {
            wait_queue.begin_call(id);
        }
        if wait_queue.is_stopping || survey.is_none() && wait_queue.is_finished(id) {
            wait_queue.cancel_wait(id);
        }
        if survey.is_none() {
            self.trigger(wait_queue.next_shard(id));
        }
        drop(wait_queue);
        (WaitHandle { waiters: self.clone(), id, reply_receiver }, survey)
    }

    /// Makes a surveyed waiter available to calls. It need not check the shards that were read.
    fn end_survey(&self, id: u64, read: &ShardSet) {
        let mut wait_queue = self.lock();
        wait_queue.in_flight.remove(&id);
        if let Some(waiter) = wait_queue.waiters.get_mut(&id) {
            waiter.unchecked_shards.remove_all(read);
        }
        wait_queue.index(id);
        if wait_queue.is_finished(id) {
            wait_queue.cancel_wait(id);
        }
        self.trigger(wait_queue.next_shard(id));
    }
}

/// A survey that is running. Its end, also that of a request whose client disconnects, makes the waiter available to calls.
#[derive(Debug)]
pub(in crate::dispatch) struct Survey {
    waiters: Arc<Waiters>,
    id: u64,
    /// The shards to read.
    pub(super) shards: ShardSet,
    /// The shards that were read.
    pub(super) read: ShardSet,
}

impl Drop for Survey {
    fn drop(&mut self) {
        self.waiters.end_survey(self.id, &self.read);
    }
}

/// A registered wait. Dropping it ends the wait.
#[derive(Debug)]
pub(in crate::dispatch) struct WaitHandle {
    waiters: Arc<Waiters>,
    id: u64,
    reply_receiver: oneshot::Receiver<Result<Delivery>>,
}

impl WaitHandle {
    /// Returns the result once there is one.
    pub(super) async fn reply(&mut self) -> Result<Delivery> {
        (&mut self.reply_receiver).await.unwrap_or_else(|_| Err(closed(&self.waiters.stop)))
    }

    /// Ends the wait. A call that includes it finishes first, and its result counts.
    pub(super) async fn cancel(mut self) -> Result<Delivery> {
        self.waiters.lock().cancel_wait(self.id);
        self.reply().await
    }
}

impl Drop for WaitHandle {
    fn drop(&mut self) {
        let mut wait_queue = self.waiters.lock();
        // A waiter in a call stays until the call returns. Its reply then meets a closed channel.
        if !wait_queue.in_flight.contains(&self.id) {
            drop(wait_queue.remove(self.id));
        }
    }
}
