//! The waiters of this server behind one lock, and the triggers of the claim loops.
//!
//! For a new waiter the shards that may have tasks are checked, because earlier wake-ups have passed; see `ready_cache`.
//! After that it idles until a wake-up or a poll names a shard. At most one call at a time includes a waiter, so it never
//! gets more tasks than it requested. A waiter that the call does not serve keeps its position.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;

use super::delivery::Delivery;
use super::ready_cache::Epoch;
use super::wait_queue::WaitQueue;
use super::waiter::{ClaimRequest, Waiter};
use crate::domain::queue::QueueName;
use crate::store::Error;
use crate::store::ops::claim::{Front, WaiterRequest};

/// Waiters taken off the queue, and the call to make for them.
#[derive(Debug)]
pub(in crate::dispatch) struct ClaimBatch {
    pub(in crate::dispatch) ids: Vec<u64>,
    pub(super) queues: Vec<QueueName>,
    pub(super) requests: Vec<WaiterRequest>,
    /// When the call was first triggered.
    pub(super) triggered_at: Instant,
    /// The epoch before the call is sent.
    sent_at: Epoch,
    /// Queues whose tasks were left to other servers in vain, if the call finds any.
    ended_yields: Vec<QueueName>,
}

/// The trigger of a shard's claim loop.
#[derive(Default, Debug)]
struct ClaimTrigger {
    notify: Notify,
    /// When it was first triggered since the last batch, in µs since [`Waiters::started`]; 0: not since.
    pending_since_us: AtomicU64,
}

/// All waiters of this server.
#[derive(Debug)]
pub(in crate::dispatch) struct Waiters {
    wait_queue: Mutex<WaitQueue>,
    started: Instant,
    triggers: Vec<ClaimTrigger>,
    /// Notified when a queue has waiters that are not announced.
    news: Notify,
    pub(super) stop: CancellationToken,
}

impl Waiters {
    pub(in crate::dispatch) fn new(shards: usize, stop: &CancellationToken) -> Self {
        let triggers = (0..shards).map(|_| ClaimTrigger::default()).collect();
        let wait_queue = Mutex::new(WaitQueue::new(shards));
        Waiters { wait_queue, started: Instant::now(), triggers, news: Notify::new(), stop: stop.clone() }
    }

    pub(super) fn lock(&self) -> MutexGuard<'_, WaitQueue> {
        self.wait_queue.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Triggers the claim loops of these shards.
    pub(super) fn trigger(&self, shards: impl IntoIterator<Item = usize>) {
        let now_us = self.elapsed_us();
        for trigger in shards.into_iter().filter_map(|shard| self.triggers.get(shard)) {
            // The delivery is timed from the first trigger.
            let _ = trigger.pending_since_us.compare_exchange(0, now_us, Ordering::Relaxed, Ordering::Relaxed);
            trigger.notify.notify_one();
        }
    }

    /// µs since [`Waiters::started`], at least 1.
    fn elapsed_us(&self) -> u64 {
        u64::try_from(self.started.elapsed().as_micros()).unwrap_or(u64::MAX).max(1)
    }

    /// Returns once the shard may have a batch.
    pub(super) async fn triggered(&self, shard: usize) {
        if let Some(trigger) = self.triggers.get(shard) {
            trigger.notify.notified().await;
        }
    }

    /// Takes the waiters to check in this shard, in order of arrival. Returns `None` if there are none.
    pub(in crate::dispatch) fn take_batch(&self, shard: usize) -> Option<ClaimBatch> {
        let mut wait_queue = self.lock();
        let triggered_us =
            self.triggers.get(shard).map_or(0, |trigger| trigger.pending_since_us.swap(0, Ordering::Relaxed));
        let ended_yields = wait_queue.sharing.take_ended_yields(shard, Instant::now());
        let ids = wait_queue.eligible(shard);
        if ids.is_empty() {
            return None;
        }
        let triggered_us = if triggered_us == 0 { self.elapsed_us() } else { triggered_us };
        let triggered_at = self.started + Duration::from_micros(triggered_us);
        let sent_at = wait_queue.ready_cache.epoch();
        let (ids_to_take, ids) = (ids, Vec::new());
        let mut batch =
            ClaimBatch { ids, queues: Vec::new(), requests: Vec::new(), triggered_at, sent_at, ended_yields };
        let mut queue_indexes = HashMap::new();
        for id in ids_to_take {
            wait_queue.begin_call(id);
            let Some(waiter) = wait_queue.waiters.get(&id) else { continue };
            let is_unchecked = waiter.unchecked_shards.contains(shard);
            let queues = wait_queue.queues_to_read(&waiter.request.queues, shard, is_unchecked).map(|queue| {
                *queue_indexes.entry(queue.clone()).or_insert_with(|| {
                    batch.queues.push(queue.clone());
                    batch.queues.len() - 1
                })
            });
            let queues = queues.collect();
            let ClaimRequest { max, lease_ms, ref worker, claim_id, .. } = *waiter.request;
            batch.requests.push(WaiterRequest { max, lease_ms, worker: worker.clone(), claim_id, queues });
            batch.ids.push(id);
        }
        Some(batch)
    }

    /// Delivers tasks to a waiter of the running call. If its client has disconnected, dropping the delivery releases
    /// them.
    pub(in crate::dispatch) fn deliver(&self, id: u64, delivery: Delivery) {
        let waiter = self.lock().remove(id);
        if let Some(waiter) = waiter {
            let _ = waiter.reply.send(Ok(delivery));
        }
    }

    /// Returns the unserved waiters of a call to their positions. `fronts` has what the call left of each queue, by index
    /// of the queue. `is_truncated`: a limit ended the call before it had checked for every waiter. For waiters
    /// of queues that have all failed, the shard has failed.
    pub(in crate::dispatch) fn return_batch(
        &self,
        shard: usize,
        batch: &ClaimBatch,
        fronts: &[(usize, Front)],
        is_truncated: bool,
        failed: &BTreeMap<QueueName, Error>,
    ) {
        let mut wait_queue = self.lock();
        let served = batch.ids.iter().filter(|id| !wait_queue.in_flight.contains(id)).count();
        wait_queue.set_batch_limit(shard, served);
        if served > 0 {
            batch.ended_yields.iter().for_each(|queue| wait_queue.sharing.halve_others(queue));
        }
        for (index, front) in fronts {
            let Some(queue) = batch.queues.get(*index) else { continue };
            wait_queue.apply_check(queue, shard, batch.sent_at, *front);
        }
        failed.keys().for_each(|queue| wait_queue.apply_check(queue, shard, batch.sent_at, Front::Blocked));
        self.return_waiters(wait_queue, BTreeSet::from([shard]), &batch.ids, |waiter| {
            let error = waiter.request.queues.first().and_then(|queue| failed.get(queue));
            if let Some(error) = error.filter(|_| waiter.request.queues.iter().all(|queue| failed.contains_key(queue)))
            {
                waiter.unchecked_shards.remove(shard);
                waiter.failed_shards.insert(shard, error.clone());
                return;
            }
            waiter.failed_shards.remove(&shard);
            if !is_truncated {
                waiter.unchecked_shards.remove(shard);
            }
        });
    }

    /// Returns the waiters of a failed call. They go on in other shards; a waiter without one ends with the error.
    /// After an outage, the shard is left out until [`Waiters::mark_available`].
    pub(super) fn fail_batch(&self, shard: usize, batch: &ClaimBatch, error: &Error) {
        let mut wait_queue = self.lock();
        let reason = if wait_queue.is_stopping { &Error::Stopping } else { error };
        let mut finished_ids = Vec::new();
        if error.is_outage() {
            finished_ids = wait_queue.mark_unavailable(shard, reason);
        } else {
            batch.queues.iter().for_each(|queue| wait_queue.apply_check(queue, shard, batch.sent_at, Front::Blocked));
        }
        let finished: Vec<Waiter> = finished_ids.into_iter().filter_map(|id| wait_queue.remove(id)).collect();
        self.return_waiters(wait_queue, BTreeSet::from([shard]), &batch.ids, |waiter| {
            waiter.unchecked_shards.remove(shard);
            waiter.failed_shards.insert(shard, reason.clone());
        });
        finished.into_iter().for_each(Waiter::finish_empty);
    }

    /// Includes the shard again. Deliveries are timed from now on: the outage does not count.
    pub(super) fn mark_available(&self, shard: usize) {
        self.lock().mark_available(shard);
        self.triggers.get(shard).into_iter().for_each(|trigger| trigger.pending_since_us.store(0, Ordering::Relaxed));
        self.trigger([shard]);
    }

    /// Returns those of the waiters that are still in a call. Their next shards are triggered too. After a claim call,
    /// `shards_to_trigger` has its shard, which may have tasks for waiters outside the call.
    pub(super) fn return_waiters(
        &self,
        mut wait_queue: MutexGuard<'_, WaitQueue>,
        mut shards_to_trigger: BTreeSet<usize>,
        ids: &[u64],
        update: impl Fn(&mut Waiter),
    ) {
        let mut finished = Vec::new();
        for id in ids {
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

    /// Handles a wake-up: the queue has a ready task of this priority.
    pub(in crate::dispatch) fn on_wakeup(&self, shard: usize, queue: &QueueName, priority: u8) {
        if self.lock().record_wakeup(queue, shard, priority) {
            self.trigger([shard]);
        }
    }

    /// Records a ready task that this server has submitted by a call sent at `sent_at`, before the submit is answered. A
    /// claim that follows finds the task, also if its wake-up is still on its way.
    pub(super) fn record_submit(&self, shard: usize, queue: &QueueName, priority: u8, sent_at: Epoch) {
        self.lock().record_submit(queue, shard, priority, sent_at);
    }

    /// Handles an announcement: the server has these waiters.
    pub(super) fn on_announcement(&self, server: u64, waiters: &[(QueueName, usize)]) {
        self.lock().sharing.record(server, waiters.to_vec(), Instant::now());
    }

    /// Returns the id of this server and its idle waiters by queue; `None` if there is nothing to announce.
    pub(super) fn announcement(&self) -> Option<(u64, Vec<(QueueName, usize)>)> {
        let mut wait_queue = self.lock();
        let waiters = wait_queue.idle_by_queue.iter().map(|(queue, idle)| (queue.clone(), idle.len())).collect();
        wait_queue.sharing.announce(waiters)
    }

    /// Returns once a queue has waiters that are not announced.
    pub(super) async fn has_news(&self) {
        self.news.notified().await;
    }

    /// Has the waiters announced, if one of these queues is not.
    pub(super) fn announce_soon(&self, queues: &[QueueName]) {
        if self.lock().sharing.has_news(queues) {
            self.news.notify_one();
        }
    }

    /// Wake-ups may be lost from now on.
    pub(super) fn interrupt(&self) {
        let mut wait_queue = self.lock();
        wait_queue.ready_cache.interrupt();
        wait_queue.sharing.interrupt();
    }

    /// The wake-ups of these shards arrive from now on.
    pub(super) fn resume(&self, shards: &[usize]) {
        let mut wait_queue = self.lock();
        shards.iter().for_each(|shard| wait_queue.ready_cache.resume(*shard));
    }

    /// Has new waiters check this shard, also for queues that were empty there.
    pub(super) fn invalidate(&self, shard: usize) {
        self.lock().ready_cache.invalidate(shard);
    }

    /// The epoch of a check that is about to be sent.
    pub(super) fn epoch(&self) -> Epoch {
        self.lock().ready_cache.epoch()
    }

    /// Applies a check of `queues` sent at `sent_at`: exactly those in `ready` have ready tasks in the shard. It triggers
    /// no call: the waiter of a survey takes any of the best shards, and not the first that answers.
    pub(super) fn apply_found(&self, shard: usize, queues: &[QueueName], sent_at: Epoch, ready: Vec<(QueueName, u8)>) {
        self.lock().apply_found(queues, shard, sent_at, ready);
    }

    /// Returns the queues that a poll reads: those that have waiters, or had some lately.
    pub(super) fn queues_to_poll(&self) -> Vec<QueueName> {
        self.lock().ready_cache.queues_to_poll()
    }

    /// Workers that wait.
    pub(in crate::dispatch) fn workers(&self) -> Vec<String> {
        self.lock().waiters.values().map(|waiter| waiter.request.worker.clone()).collect()
    }

    /// The error of an unavailable shard, if there is one.
    pub(super) fn unavailable_error(&self) -> Option<Error> {
        self.lock().unavailable_shards.values().next().cloned()
    }

    /// Ends all waits, and those that begin later: empty, or as stopping if a shard failed.
    pub(super) fn finish_all(&self) {
        let mut wait_queue = self.lock();
        wait_queue.stop();
        let ids: Vec<u64> = wait_queue.waiters.keys().copied().collect();
        ids.into_iter().for_each(|id| wait_queue.cancel_wait(id));
    }
}
