//! The queue of waiting claims: all waiters in order of arrival, the waiters in a running call, and the shards to check
//! for them; `next_call` chooses among them. Each function is one synchronous step, without a lock or a channel.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;

use super::ready_cache::{Epoch, ReadyCache};
use super::shard_set::ShardSet;
use super::sharing::Sharing;
use super::waiter::{ClaimRequest, ReplySender, Waiter};
use crate::domain::claim_id::ClaimId;
use crate::domain::queue::QueueName;
use crate::store::Error;
use crate::store::ops::claim::Front;

/// Waiters of a ready queue in the first call after a wake-up. Usually the queue has one task.
pub(super) const INITIAL_BATCH_LIMIT: usize = 4;

/// The waiters and where tasks are ready for them.
#[derive(Default)]
pub(super) struct WaitQueue {
    pub(super) shard_count: usize,
    last_id: u64,
    /// All waiters, by id. Ids grow in order of arrival.
    pub(super) waiters: HashMap<u64, Waiter>,
    /// Waiters in a running call.
    pub(super) in_flight: BTreeSet<u64>,
    /// Of these, the waiters offered to a submit.
    pub(super) offered: BTreeSet<u64>,
    /// By queue: the waiters in no call.
    pub(super) idle_by_queue: HashMap<QueueName, BTreeSet<u64>>,
    /// Waiters in no call that have unchecked shards.
    pub(super) unchecked: BTreeSet<u64>,
    /// The latest waiter of each claim id.
    by_claim_id: HashMap<ClaimId, u64>,
    /// The shards known to have ready tasks.
    pub(super) ready_cache: ReadyCache,
    /// By shard: waiters of a ready queue that the next call takes.
    pub(super) batch_limits: Vec<usize>,
    /// The waiters of other servers.
    pub(super) sharing: Sharing,
    /// Unavailable shards, with the error.
    pub(super) unavailable_shards: BTreeMap<usize, Error>,
    pub(super) is_stopping: bool,
}

impl std::fmt::Debug for WaitQueue {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} waiters", self.waiters.len())
    }
}

impl WaitQueue {
    pub(super) fn new(shard_count: usize) -> Self {
        let (ready_cache, batch_limits) = (ReadyCache::new(shard_count), vec![INITIAL_BATCH_LIMIT; shard_count]);
        WaitQueue { shard_count, batch_limits, ready_cache, ..WaitQueue::default() }
    }

    /// Adds a waiter at the end and returns its id. A long poll need not check shards that are known to be empty: it
    /// waits for their wake-ups. An earlier waiter of the same claim id ends: its client has retried.
    pub(super) fn add(&mut self, request: Arc<ClaimRequest>, reply: ReplySender, is_long_poll: bool) -> u64 {
        self.last_id += 1;
        let id = self.last_id;
        for queue in &request.queues {
            self.ready_cache.add_waiter(queue);
        }
        if let Some(earlier) = request.claim_id.and_then(|claim_id| self.by_claim_id.insert(claim_id, id)) {
            self.cancel_wait(earlier);
        }
        let (unchecked_shards, failed_shards) =
            (self.shards_to_check(&request.queues, is_long_poll), self.unavailable_shards.clone());
        let waiter = Waiter { request, reply, unchecked_shards, failed_shards, is_long_poll, is_cancelled: false };
        self.waiters.insert(id, waiter);
        self.index(id);
        id
    }

    /// Returns the shards that a new waiter for these queues checks.
    pub(super) fn shards_to_check(&self, queues: &[QueueName], is_long_poll: bool) -> ShardSet {
        let mut shards = match is_long_poll {
            true => self.ready_cache.possible_shards(queues),
            false => ShardSet::first(self.shard_count),
        };
        let is_left = |shard| is_long_poll && self.is_left_to_others(queues, shard);
        shards.retain(|shard| !self.unavailable_shards.contains_key(&shard) && !is_left(shard));
        shards
    }

    /// Ends a wait now, or once the call that includes it returns.
    pub(super) fn cancel_wait(&mut self, id: u64) {
        if !self.in_flight.contains(&id) {
            self.remove(id).into_iter().for_each(Waiter::finish_empty);
        } else if let Some(waiter) = self.waiters.get_mut(&id) {
            waiter.is_cancelled = true;
        }
    }

    /// Has a waiter leave out a shard that was checked for it.
    pub(super) fn leave_out(&mut self, id: u64, shard: usize) {
        self.deindex(id);
        self.waiters.get_mut(&id).into_iter().for_each(|waiter| waiter.unchecked_shards.remove(shard));
        self.index(id);
    }

    /// Makes a waiter available to calls.
    pub(super) fn index(&mut self, id: u64) {
        let Some(waiter) = self.waiters.get(&id) else { return };
        if !waiter.unchecked_shards.is_empty() {
            self.unchecked.insert(id);
        }
        for queue in &waiter.request.queues {
            self.idle_by_queue.entry(queue.clone()).or_default().insert(id);
        }
    }

    /// Hides a waiter from calls, because one begins that includes it.
    pub(super) fn begin_call(&mut self, id: u64) {
        self.deindex(id);
        self.in_flight.insert(id);
    }

    /// Hides a waiter from calls.
    pub(super) fn deindex(&mut self, id: u64) {
        self.unchecked.remove(&id);
        let Some(waiter) = self.waiters.get(&id) else { return };
        for queue in &waiter.request.queues {
            if let Some(idle) = self.idle_by_queue.get_mut(queue) {
                idle.remove(&id);
                if idle.is_empty() {
                    self.idle_by_queue.remove(queue);
                }
            }
        }
    }

    /// Removes a waiter.
    pub(super) fn remove(&mut self, id: u64) -> Option<Waiter> {
        self.deindex(id);
        self.in_flight.remove(&id);
        self.offered.remove(&id);
        let waiter = self.waiters.remove(&id)?;
        if let Some(claim_id) = waiter.request.claim_id
            && self.by_claim_id.get(&claim_id) == Some(&id)
        {
            self.by_claim_id.remove(&claim_id);
        }
        for queue in &waiter.request.queues {
            self.ready_cache.remove_waiter(queue);
        }
        Some(waiter)
    }

    /// Makes the server's stop the reason of failed waits, now and later.
    pub(super) fn stop(&mut self) {
        self.is_stopping = true;
        let failed = self.waiters.values_mut().flat_map(|waiter| waiter.failed_shards.values_mut());
        failed.chain(self.unavailable_shards.values_mut()).for_each(|error| *error = Error::Stopping);
    }

    /// Whether further waiting is pointless: the wait is cancelled, nothing is left to check and the waiter does not
    /// long-poll, all shards failed, or the client has disconnected.
    pub(super) fn is_finished(&self, id: u64) -> bool {
        self.waiters.get(&id).is_some_and(|waiter| {
            let is_checked =
                waiter.unchecked_shards.is_empty() && self.preferred_ready_shards(&waiter.request.queues).is_none();
            let has_ended = waiter.is_cancelled || is_checked && !waiter.is_long_poll;
            has_ended || waiter.failed_shards.len() == self.shard_count || waiter.reply.is_closed()
        })
    }

    /// Applies what a check of the shard sent at `sent_at` found in the queue.
    pub(super) fn apply_check(&mut self, queue: &QueueName, shard: usize, sent_at: Epoch, found: Front) {
        if !self.unavailable_shards.contains_key(&shard) {
            self.ready_cache.apply_check(queue, shard, sent_at, found);
        }
    }

    /// Applies a check of the shard that read `queues`: exactly those in `ready` have ready tasks.
    pub(super) fn apply_found(
        &mut self,
        queues: &[QueueName],
        shard: usize,
        sent_at: Epoch,
        ready: Vec<(QueueName, u8)>,
    ) {
        let priorities: HashMap<QueueName, u8> = ready.into_iter().collect();
        for queue in queues {
            let found = priorities.get(queue).map_or(Front::Empty, |priority| Front::Ready(*priority));
            self.apply_check(queue, shard, sent_at, found);
        }
    }

    /// Records a wake-up. Returns whether the queue has waiters, and the shard is available.
    pub(super) fn record_wakeup(&mut self, queue: &QueueName, shard: usize, priority: u8) -> bool {
        let has_waiters = self.ready_cache.record_wakeup(queue, shard, priority);
        self.drop_if_unavailable(queue, shard);
        has_waiters && !self.unavailable_shards.contains_key(&shard)
    }

    /// Records a task that this server has submitted by a call sent at `sent_at`. Its wake-up follows.
    pub(super) fn record_submit(&mut self, queue: &QueueName, shard: usize, priority: u8, sent_at: Epoch) {
        self.ready_cache.record_submit(queue, shard, priority, sent_at);
        self.drop_if_unavailable(queue, shard);
    }

    /// All waiters check an unavailable shard again once it is available.
    fn drop_if_unavailable(&mut self, queue: &QueueName, shard: usize) {
        if self.unavailable_shards.contains_key(&shard) {
            self.ready_cache.remove_ready(queue, shard);
        }
    }

    /// Marks a shard as unavailable. Returns the waiters in no call that have no other shard.
    pub(super) fn mark_unavailable(&mut self, shard: usize, error: &Error) -> Vec<u64> {
        self.unavailable_shards.insert(shard, error.clone());
        self.ready_cache.remove_ready_of(shard);
        self.ready_cache.invalidate(shard);
        for waiter in self.waiters.values_mut() {
            waiter.unchecked_shards.remove(shard);
            waiter.failed_shards.insert(shard, error.clone());
        }
        let idle = self.waiters.keys().filter(|id| !self.in_flight.contains(id));
        idle.copied().filter(|id| self.is_finished(*id)).collect()
    }

    /// Marks a shard as available. All waiters check it again.
    pub(super) fn mark_available(&mut self, shard: usize) {
        if self.unavailable_shards.remove(&shard).is_none() {
            return;
        }
        for (id, waiter) in &mut self.waiters {
            waiter.failed_shards.remove(&shard);
            waiter.unchecked_shards.insert(shard);
            if !self.in_flight.contains(id) {
                self.unchecked.insert(*id);
            }
        }
    }
}

#[cfg(test)]
pub(super) mod tests {
    use tokio::sync::oneshot;

    use super::*;
    use crate::dispatch::claim::delivery::Delivery;
    use crate::store::Result;

    pub(in crate::dispatch::claim) fn queue(name: &str) -> QueueName {
        QueueName::parse(name).unwrap()
    }

    pub(in crate::dispatch::claim) fn add_waiter(
        wait_queue: &mut WaitQueue,
        queues: &[&str],
    ) -> (u64, oneshot::Receiver<Result<Delivery>>) {
        let (reply, reply_receiver) = oneshot::channel();
        let queues = queues.iter().map(|name| queue(name)).collect();
        let request = ClaimRequest { queues, max: 1, lease_ms: 1000, worker: "w".into(), claim_id: None };
        (wait_queue.add(request.into(), reply, true), reply_receiver)
    }

    #[test]
    fn new_waiter_checks_every_shard_once_then_idles() {
        let mut wait_queue = WaitQueue::new(4);
        let (id, _reply) = add_waiter(&mut wait_queue, &["q"]);
        let mut checked = BTreeSet::new();
        while let Some(shard) = wait_queue.next_shard(id) {
            assert_eq!(wait_queue.eligible(shard), [id]);
            wait_queue.deindex(id);
            wait_queue.waiters.get_mut(&id).unwrap().unchecked_shards.remove(shard);
            wait_queue.index(id);
            checked.insert(shard);
        }
        assert_eq!(checked, BTreeSet::from([0, 1, 2, 3]));
        assert!(!wait_queue.is_finished(id));
    }

    #[test]
    fn unavailable_shard_is_not_waited_for() {
        let mut wait_queue = WaitQueue::new(2);
        let (id, _reply) = add_waiter(&mut wait_queue, &["q"]);
        let unavailable = Error::Unavailable("no answer".into());
        let sent_at = wait_queue.ready_cache.epoch();
        assert!(wait_queue.mark_unavailable(0, &unavailable).is_empty());
        wait_queue.record_wakeup(&queue("q"), 0, 4);
        wait_queue.apply_check(&queue("q"), 0, sent_at, Front::Ready(4));
        assert_eq!(wait_queue.next_shard(id), Some(1));
        assert_eq!(wait_queue.mark_unavailable(1, &unavailable), [id], "no shard is left");
        wait_queue.mark_available(0);
        assert_eq!(wait_queue.next_shard(id), Some(0));
        assert!(!wait_queue.is_finished(id));
    }

    #[test]
    fn wait_with_a_failed_shard_ends_as_stopping_in_a_stopping_server() {
        let mut wait_queue = WaitQueue::new(2);
        let (early, mut early_reply) = add_waiter(&mut wait_queue, &["q"]);
        wait_queue.mark_unavailable(0, &Error::Unavailable("no answer".into()));

        wait_queue.stop();
        wait_queue.cancel_wait(early);
        let (late, mut late_reply) = add_waiter(&mut wait_queue, &["q"]);
        wait_queue.cancel_wait(late);

        assert!(matches!(early_reply.try_recv(), Ok(Err(Error::Stopping))));
        assert!(matches!(late_reply.try_recv(), Ok(Err(Error::Stopping))));
    }

    #[test]
    fn long_poll_leaves_out_empty_shards_and_a_claim_that_does_not_wait_none() {
        let mut wait_queue = WaitQueue::new(2);
        (0..2).for_each(|shard| wait_queue.ready_cache.resume(shard));
        let (first, _first_reply) = add_waiter(&mut wait_queue, &["q"]);
        let sent_at = wait_queue.ready_cache.epoch();
        (0..2).for_each(|shard| wait_queue.apply_check(&queue("q"), shard, sent_at, Front::Empty));
        drop(wait_queue.remove(first));
        let (second, _second_reply) = add_waiter(&mut wait_queue, &["q"]);
        assert!(wait_queue.next_shard(second).is_none() && !wait_queue.is_finished(second));
        let (both, _reply_of_both) = add_waiter(&mut wait_queue, &["q", "other"]);
        assert!(wait_queue.next_shard(both).is_some(), "nothing is known of the other queue");
        let request = wait_queue.waiters[&second].request.clone();
        let (reply, _reply_of_now) = oneshot::channel();
        let now = wait_queue.add(request, reply, false);
        assert!(wait_queue.waiters[&now].unchecked_shards.iter().eq([0, 1]));

        wait_queue.record_wakeup(&queue("q"), 1, 4);
        assert_eq!(wait_queue.next_shard(second), Some(1));
    }
}
