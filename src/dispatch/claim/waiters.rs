//! Who waits for tasks of which queues, in order of arrival, and where there is something for them.
//!
//! A new waiter is looked for in every shard, one after another: a hint from before it came has passed. After that it
//! rests until a hint or a sweep says where to look. A pump takes a waiter out while it looks, so one shard at a time
//! looks for it and it never gets more than it wants; what it did not serve goes back to its own place.

use std::collections::{BTreeSet, HashMap};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use tokio::sync::{Notify, oneshot};

use super::delivery::Delivery;
use super::wait_queue::{WaitQueue, Waiter};
use crate::domain::digest::Digest;
use crate::domain::queue::QueueName;
use crate::store::ops::claim::WaiterRequest;
use crate::store::{Error, Result};

/// What a client asks for.
#[derive(Clone, Debug)]
pub struct ClaimRequest {
    /// In order of preference.
    pub queues: Vec<QueueName>,
    /// How many tasks at most.
    pub max: usize,
    /// For how long, ms.
    pub lease_ms: i64,
    /// Under which name.
    pub worker: String,
    /// Of the claim id.
    pub claim: Option<Digest>,
}

/// Waiters that a pump has taken out, and the call to make for them.
#[derive(Debug)]
pub(in crate::dispatch) struct ClaimBatch {
    pub(in crate::dispatch) ids: Vec<u64>,
    pub(in crate::dispatch) queues: Vec<QueueName>,
    pub(in crate::dispatch) requests: Vec<WaiterRequest>,
    /// When the shard's pump first had a reason to make this call.
    pub(in crate::dispatch) triggered_at: Instant,
}

/// What a shard's pump is told.
#[derive(Default, Debug)]
struct ClaimTrigger {
    notify: Notify,
    /// When it was first told something since it last pulled, in µs since the line began; 0: it was not.
    pending_since_us: AtomicU64,
}

/// All who wait.
#[derive(Debug)]
pub(in crate::dispatch) struct Waiters {
    wait_queue: Mutex<WaitQueue>,
    started: Instant,
    triggers: Vec<ClaimTrigger>,
}

impl Waiters {
    pub(in crate::dispatch) fn new(shards: usize) -> Self {
        let triggers = (0..shards).map(|_| ClaimTrigger::default()).collect();
        Waiters { wait_queue: Mutex::new(WaitQueue::new(shards)), started: Instant::now(), triggers }
    }

    fn lock(&self) -> MutexGuard<'_, WaitQueue> {
        self.wait_queue.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn trigger(&self, shards: impl IntoIterator<Item = usize>) {
        let now_us = self.elapsed_us();
        for trigger in shards.into_iter().filter_map(|shard| self.triggers.get(shard)) {
            // Only the first counts.
            let _ = trigger.pending_since_us.compare_exchange(0, now_us, Ordering::Relaxed, Ordering::Relaxed);
            trigger.notify.notify_one();
        }
    }

    /// In µs since the line began, never 0.
    fn elapsed_us(&self) -> u64 {
        u64::try_from(self.started.elapsed().as_micros()).unwrap_or(u64::MAX).max(1)
    }

    /// Returns when there may be something to pull for this shard.
    pub(in crate::dispatch) async fn triggered(&self, shard: usize) {
        if let Some(trigger) = self.triggers.get(shard) {
            trigger.notify.notified().await;
        }
    }

    /// A new waiter at the end of the line.
    pub(in crate::dispatch) fn register(self: &Arc<Self>, request: ClaimRequest, is_long_poll: bool) -> WaitHandle {
        let (reply, reply_receiver) = oneshot::channel();
        let mut wait_queue = self.lock();
        let id = wait_queue.add(request, reply, is_long_poll);
        if wait_queue.stopping || wait_queue.is_finished(id) {
            wait_queue.cancel_wait(id);
        }
        self.trigger(wait_queue.next_shard(id));
        drop(wait_queue);
        WaitHandle { waiters: self.clone(), id, reply_receiver }
    }

    /// Takes out those for whom this shard is where to look, in order of arrival; `None` if there are none.
    pub(in crate::dispatch) fn take_batch(&self, shard: usize) -> Option<ClaimBatch> {
        let mut wait_queue = self.lock();
        let triggered_us =
            self.triggers.get(shard).map_or(0, |trigger| trigger.pending_since_us.swap(0, Ordering::Relaxed));
        let ids = wait_queue.eligible(shard);
        if ids.is_empty() {
            return None;
        }
        wait_queue.begin_call(shard);
        let triggered_at =
            self.started + Duration::from_micros(if triggered_us == 0 { self.elapsed_us() } else { triggered_us });
        let mut batch = ClaimBatch { ids: Vec::new(), queues: Vec::new(), requests: Vec::new(), triggered_at };
        let mut queue_indexes = HashMap::new();
        for id in ids {
            wait_queue.deindex(id);
            let Some(waiter) = wait_queue.waiters.get(&id) else { continue };
            let is_unchecked = waiter.unchecked_shards.contains(&shard);
            let may_have_tasks = |queue: &&QueueName| is_unchecked || wait_queue.is_ready(queue, shard);
            let mut queues = Vec::new();
            for queue in waiter.request.queues.iter().filter(may_have_tasks) {
                queues.push(*queue_indexes.entry(queue.clone()).or_insert_with(|| {
                    batch.queues.push(queue.clone());
                    batch.queues.len() - 1
                }));
            }
            let ClaimRequest { max, lease_ms, ref worker, claim, .. } = *waiter.request;
            batch.requests.push(WaiterRequest { max, lease_ms, worker: worker.clone(), claim_digest: claim, queues });
            batch.ids.push(id);
            wait_queue.in_flight.insert(id);
        }
        Some(batch)
    }

    /// Waiter `id`, which is taken out, gets its tasks. If it has gone, they go back as the delivery is dropped.
    pub(in crate::dispatch) fn deliver(&self, id: u64, delivery: Delivery) {
        let waiter = self.lock().remove(id);
        if let Some(waiter) = waiter {
            let _ = waiter.reply.send(Ok(delivery));
        }
    }

    /// A call has come back: those whom it did not serve go back to their places. `cut`: a limit ended it, so it has
    /// not looked for all of them.
    pub(in crate::dispatch) fn return_batch(
        &self,
        shard: usize,
        batch: &ClaimBatch,
        fronts: &[(usize, Option<u8>)],
        is_truncated: bool,
    ) {
        let mut wait_queue = self.lock();
        let served = batch.ids.iter().filter(|id| !wait_queue.in_flight.contains(id)).count();
        wait_queue.set_batch_limit(shard, served);
        for (index, front) in fronts {
            let Some(queue) = batch.queues.get(*index) else { continue };
            match front {
                Some(priority) => wait_queue.set_ready(queue, shard, *priority),
                None => wait_queue.clear_ready(queue, shard),
            }
        }
        self.return_waiters(wait_queue, shard, batch, |waiter| {
            waiter.failed_shards.remove(&shard);
            if !is_truncated {
                waiter.unchecked_shards.remove(&shard);
            }
        });
    }

    /// A call has failed: those it was for are looked for elsewhere, and told when there is nowhere else. A shard that
    /// is away is not looked in until [`Waiters::up`].
    pub(in crate::dispatch) fn fail_batch(&self, shard: usize, batch: &ClaimBatch, error: &Error) {
        let mut wait_queue = self.lock();
        let mut finished_ids = Vec::new();
        if error.is_outage() {
            finished_ids = wait_queue.mark_unavailable(shard, error);
        } else {
            batch.queues.iter().for_each(|queue| wait_queue.clear_ready(queue, shard));
        }
        let finished: Vec<Waiter> = finished_ids.into_iter().filter_map(|id| wait_queue.remove(id)).collect();
        self.return_waiters(wait_queue, shard, batch, |waiter| {
            waiter.unchecked_shards.remove(&shard);
            waiter.failed_shards.insert(shard, error.clone());
        });
        finished.into_iter().for_each(Waiter::finish_empty);
    }

    /// The shard answers again. For how long it did not is no part of how long it takes to hand out.
    pub(in crate::dispatch) fn mark_available(&self, shard: usize) {
        self.lock().mark_available(shard);
        self.triggers.get(shard).into_iter().for_each(|trigger| trigger.pending_since_us.store(0, Ordering::Relaxed));
        self.trigger([shard]);
    }

    fn return_waiters(
        &self,
        mut wait_queue: MutexGuard<'_, WaitQueue>,
        shard: usize,
        batch: &ClaimBatch,
        update: impl Fn(&mut Waiter),
    ) {
        // There may be more for others of this shard.
        let mut shards_to_trigger = BTreeSet::from([shard]);
        let mut finished = Vec::new();
        for id in &batch.ids {
            if !wait_queue.in_flight.remove(id) {
                continue;
            }
            wait_queue.waiters.get_mut(id).into_iter().for_each(&update);
            if wait_queue.is_finished(*id) {
                finished.extend(wait_queue.remove(*id));
            } else {
                wait_queue.index(*id);
                shards_to_trigger.extend(wait_queue.next_shard(*id));
            }
        }
        drop(wait_queue);
        self.trigger(shards_to_trigger);
        finished.into_iter().for_each(Waiter::finish_empty);
    }

    /// A script said that the queue has something of this priority.
    pub(in crate::dispatch) fn on_wakeup(&self, shard: usize, queue: &QueueName, priority: u8) {
        let mut wait_queue = self.lock();
        if wait_queue.waiters_per_queue.contains_key(queue) {
            wait_queue.record_wakeup(queue, shard, priority);
            self.trigger([shard]);
        }
    }

    /// A sweep found that of `queues` exactly those in `found` have something in this shard.
    pub(in crate::dispatch) fn apply_poll(&self, shard: usize, queues: &[QueueName], ready: Vec<(QueueName, u8)>) {
        let mut wait_queue = self.lock();
        let priorities: HashMap<QueueName, u8> = ready.into_iter().collect();
        for queue in queues {
            match priorities.get(queue) {
                Some(priority) => wait_queue.set_ready(queue, shard, *priority),
                None => wait_queue.clear_ready(queue, shard),
            }
        }
        self.trigger([shard]);
    }

    /// The queues that somebody waits for.
    pub(in crate::dispatch) fn queues(&self) -> Vec<QueueName> {
        self.lock().waiters_per_queue.keys().cloned().collect()
    }

    /// Who waits.
    pub(in crate::dispatch) fn workers(&self) -> Vec<String> {
        self.lock().waiters.values().map(|waiter| waiter.request.worker.clone()).collect()
    }

    /// Why a shard is left out, if one is.
    pub(in crate::dispatch) fn unavailable_error(&self) -> Option<Error> {
        self.lock().unavailable_shards.values().next().cloned()
    }

    /// All get an empty answer, and so does whoever comes later.
    pub(in crate::dispatch) fn finish_all(&self) {
        let mut wait_queue = self.lock();
        wait_queue.stopping = true;
        let ids: Vec<u64> = wait_queue.waiters.keys().copied().collect();
        ids.into_iter().for_each(|id| wait_queue.cancel_wait(id));
    }

    pub(in crate::dispatch) fn is_stopping(&self) -> bool {
        self.lock().stopping
    }
}

/// A place in the line. Dropped, it is given up.
#[derive(Debug)]
pub(in crate::dispatch) struct WaitHandle {
    waiters: Arc<Waiters>,
    id: u64,
    reply_receiver: oneshot::Receiver<Result<Delivery>>,
}

impl WaitHandle {
    /// The answer, when it comes.
    pub(in crate::dispatch) async fn reply(&mut self) -> Result<Delivery> {
        match (&mut self.reply_receiver).await {
            Ok(reply) => reply,
            Err(_) => Err(Error::Unavailable("the server is stopping".into())),
        }
    }

    /// Gives the place up, unless somebody is looking for it right now: then its answer still counts.
    pub(in crate::dispatch) async fn cancel(mut self) -> Result<Delivery> {
        self.waiters.lock().cancel_wait(self.id);
        self.reply().await
    }
}

impl Drop for WaitHandle {
    fn drop(&mut self) {
        let mut wait_queue = self.waiters.lock();
        // One that is being looked for stays until the pump comes back: what it gets meets a closed channel.
        if !wait_queue.in_flight.contains(&self.id) {
            drop(wait_queue.remove(self.id));
        }
    }
}
