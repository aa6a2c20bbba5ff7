//! The line of those who wait: who they are, which of them a pump has taken out, and where there is something for whom.
//! No lock, no channel is waited for here: each function is one step.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::sync::Arc;

use tokio::sync::oneshot;

use super::delivery::Delivery;
use super::waiters::ClaimRequest;
use crate::domain::digest::Digest;
use crate::domain::queue::QueueName;
use crate::store::{Error, Result};

/// Waiters in one call.
const MAX_BATCH_WAITERS: usize = 100;
/// Those of a queue that has something who are looked for first: as a rule it has something for one of them.
const INITIAL_BATCH_LIMIT: usize = 4;

/// Where a waiter's answer goes.
pub(in crate::dispatch) type ReplySender = oneshot::Sender<Result<Delivery>>;

pub(in crate::dispatch) struct Waiter {
    pub(in crate::dispatch) request: Arc<ClaimRequest>,
    pub(in crate::dispatch) reply: ReplySender,
    /// Shards that have not been looked in yet.
    pub(in crate::dispatch) unchecked_shards: BTreeSet<usize>,
    /// Shards that could not be looked in.
    pub(in crate::dispatch) failed_shards: BTreeMap<usize, Error>,
    /// Whether it rests when there is nothing for it.
    pub(in crate::dispatch) is_long_poll: bool,
}

impl Waiter {
    /// Ends its wait: it gets nothing, and is told why if that is because somewhere could not be looked.
    pub(in crate::dispatch) fn finish_empty(mut self) {
        let result = self.failed_shards.pop_first().map_or(Ok(Delivery::default()), |(_, error)| Err(error));
        // Whoever waited may have gone.
        let _ = self.reply.send(result);
    }
}

#[derive(Default)]
pub(in crate::dispatch) struct WaitQueue {
    shard_count: usize,
    last_id: u64,
    /// All, also those that are taken out.
    pub(in crate::dispatch) waiters: HashMap<u64, Waiter>,
    /// Those that a pump has taken out.
    pub(in crate::dispatch) in_flight: HashSet<u64>,
    /// By queue, those that are not taken out.
    idle_by_queue: HashMap<QueueName, BTreeSet<u64>>,
    /// Those that are not taken out and have shards to be looked for in.
    unchecked: BTreeSet<u64>,
    /// How many wait for a queue at all.
    pub(in crate::dispatch) waiters_per_queue: HashMap<QueueName, usize>,
    /// By claim id: the last one that came with it.
    by_claim_digest: HashMap<Digest, u64>,
    /// Where there is something to claim, and of which priority.
    ready_shards: HashMap<QueueName, BTreeMap<usize, u8>>,
    /// Per shard: queues that were hinted at while its call was under way.
    woken_queues: HashMap<usize, HashSet<QueueName>>,
    /// Per shard: how many of a queue that has something the next call looks for.
    batch_limits: Vec<usize>,
    /// Shards that are away.
    pub(in crate::dispatch) unavailable_shards: BTreeMap<usize, Error>,
    pub(in crate::dispatch) stopping: bool,
}

impl std::fmt::Debug for WaitQueue {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} waiters", self.waiters.len())
    }
}

impl WaitQueue {
    pub(in crate::dispatch) fn new(shard_count: usize) -> Self {
        WaitQueue { shard_count, batch_limits: vec![INITIAL_BATCH_LIMIT; shard_count], ..WaitQueue::default() }
    }

    /// A new waiter at the end. One that came earlier with the same claim id is answered: its client asks anew.
    pub(in crate::dispatch) fn add(&mut self, request: ClaimRequest, reply: ReplySender, is_long_poll: bool) -> u64 {
        self.last_id += 1;
        let id = self.last_id;
        for queue in &request.queues {
            *self.waiters_per_queue.entry(queue.clone()).or_default() += 1;
        }
        if let Some(earlier) = request.claim.and_then(|claim_digest| self.by_claim_digest.insert(claim_digest, id)) {
            self.cancel_wait(earlier);
        }
        let failed_shards = self.unavailable_shards.clone();
        let unchecked_shards = (0..self.shard_count).filter(|shard| !failed_shards.contains_key(shard)).collect();
        self.waiters
            .insert(id, Waiter { request: Arc::new(request), reply, unchecked_shards, failed_shards, is_long_poll });
        self.index(id);
        id
    }

    /// Ends the wait of `id`, or has it end when the pump that looks for it comes back.
    pub(in crate::dispatch) fn cancel_wait(&mut self, id: u64) {
        if !self.in_flight.contains(&id) {
            self.remove(id).into_iter().for_each(Waiter::finish_empty);
        } else if let Some(waiter) = self.waiters.get_mut(&id) {
            waiter.is_long_poll = false;
            waiter.unchecked_shards.clear();
        }
    }

    /// Puts it where it is found.
    pub(in crate::dispatch) fn index(&mut self, id: u64) {
        let Some(waiter) = self.waiters.get(&id) else { return };
        if !waiter.unchecked_shards.is_empty() {
            self.unchecked.insert(id);
        }
        for queue in &waiter.request.queues {
            self.idle_by_queue.entry(queue.clone()).or_default().insert(id);
        }
    }

    /// Takes it from where it is found.
    pub(in crate::dispatch) fn deindex(&mut self, id: u64) {
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

    /// Takes it out of the line for good.
    pub(in crate::dispatch) fn remove(&mut self, id: u64) -> Option<Waiter> {
        self.deindex(id);
        self.in_flight.remove(&id);
        let waiter = self.waiters.remove(&id)?;
        if let Some(claim_digest) = waiter.request.claim
            && self.by_claim_digest.get(&claim_digest) == Some(&id)
        {
            self.by_claim_digest.remove(&claim_digest);
        }
        for queue in &waiter.request.queues {
            if let Some(count) = self.waiters_per_queue.get_mut(queue) {
                *count -= 1;
                if *count == 0 {
                    self.waiters_per_queue.remove(queue);
                    self.ready_shards.remove(queue);
                }
            }
        }
        Some(waiter)
    }

    /// Whether nothing can come of waiting on: it has been looked for everywhere and does not rest, it cannot be
    /// looked for anywhere, or its client has gone.
    pub(in crate::dispatch) fn is_finished(&self, id: u64) -> bool {
        self.waiters.get(&id).is_some_and(|waiter| {
            let checked_everywhere = waiter.unchecked_shards.is_empty() && !waiter.is_long_poll;
            checked_everywhere || waiter.failed_shards.len() == self.shard_count || waiter.reply.is_closed()
        })
    }

    /// There is something in the shard.
    pub(in crate::dispatch) fn set_ready(&mut self, queue: &QueueName, shard: usize, priority: u8) {
        if self.waiters_per_queue.contains_key(queue) && !self.unavailable_shards.contains_key(&shard) {
            self.ready_shards.entry(queue.clone()).or_default().insert(shard, priority);
        }
    }

    /// There is nothing, unless a hint said otherwise while that was found out.
    pub(in crate::dispatch) fn clear_ready(&mut self, queue: &QueueName, shard: usize) {
        if self.woken_queues.get(&shard).is_some_and(|woken| woken.contains(queue)) {
            return;
        }
        if let Some(shards) = self.ready_shards.get_mut(queue) {
            shards.remove(&shard);
            if shards.is_empty() {
                self.ready_shards.remove(queue);
            }
        }
    }

    /// A hint came.
    pub(in crate::dispatch) fn record_wakeup(&mut self, queue: &QueueName, shard: usize, priority: u8) {
        self.set_ready(queue, shard, priority);
        self.woken_queues.entry(shard).or_default().insert(queue.clone());
    }

    /// A call of the shard begins: hints from before it are seen by it.
    pub(in crate::dispatch) fn begin_call(&mut self, shard: usize) {
        self.woken_queues.remove(&shard);
    }

    /// The shard is away: nobody waits for it, and whoever has nowhere else to be looked for is to leave.
    pub(in crate::dispatch) fn mark_unavailable(&mut self, shard: usize, error: &Error) -> Vec<u64> {
        self.unavailable_shards.insert(shard, error.clone());
        for shards in self.ready_shards.values_mut() {
            shards.remove(&shard);
        }
        self.ready_shards.retain(|_, shards| !shards.is_empty());
        for waiter in self.waiters.values_mut() {
            waiter.unchecked_shards.remove(&shard);
            waiter.failed_shards.insert(shard, error.clone());
        }
        let idle = self.waiters.keys().filter(|id| !self.in_flight.contains(id));
        idle.copied().filter(|id| self.is_finished(*id)).collect()
    }

    /// The shard is back: all are looked for in it again.
    pub(in crate::dispatch) fn mark_available(&mut self, shard: usize) {
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

    /// Whether this shard is where the queue shows its best priority.
    fn has_best_priority(&self, queue: &QueueName, shard: usize) -> bool {
        self.ready_shards.get(queue).is_some_and(|shards| {
            shards.get(&shard).is_some_and(|priority| shards.values().all(|other| other <= priority))
        })
    }

    /// Whether there is something of the queue in the shard, as far as is known.
    pub(in crate::dispatch) fn is_ready(&self, queue: &QueueName, shard: usize) -> bool {
        self.ready_shards.get(queue).is_some_and(|shards| shards.contains_key(&shard))
    }

    /// A call has served so many. The next looks for twice as many: a crowd costs a call for nothing little, and a
    /// flood of tasks finds all who wait within a few calls.
    pub(in crate::dispatch) fn set_batch_limit(&mut self, shard: usize, served: usize) {
        if let Some(limit) = self.batch_limits.get_mut(shard) {
            *limit = (2 * served).clamp(INITIAL_BATCH_LIMIT, MAX_BATCH_WAITERS);
        }
    }

    /// Where the queue that the waiter prefers of those that have something has it.
    fn preferred_ready_shards(&self, waiter: &Waiter) -> Option<&BTreeMap<usize, u8>> {
        waiter.request.queues.iter().find_map(|queue| self.ready_shards.get(queue))
    }

    /// Where to look for this waiter next: where the queue it prefers shows the best priority, else wherever it has
    /// not been looked for; `None`: nowhere for now.
    pub(in crate::dispatch) fn next_shard(&self, id: u64) -> Option<usize> {
        let waiter = self.waiters.get(&id)?;
        if let Some(shards) = self.preferred_ready_shards(waiter) {
            return shards.iter().max_by_key(|(_, priority)| **priority).map(|(shard, _)| *shard);
        }
        // Waiters begin at different shards, so that a crowd of them does not move in step.
        let start = (id % self.shard_count.max(1) as u64) as usize;
        let distance = |shard: &usize| (shard + self.shard_count - start) % self.shard_count;
        waiter.unchecked_shards.iter().copied().min_by_key(distance)
    }

    /// The first of those whose target is this shard, in order of arrival. A shard of equal priority counts as one.
    pub(in crate::dispatch) fn eligible(&self, shard: usize) -> Vec<u64> {
        let mut ids = BTreeSet::new();
        let limit = self.batch_limits.get(shard).copied().unwrap_or(MAX_BATCH_WAITERS);
        for queue in self.ready_shards.keys().filter(|queue| self.has_best_priority(queue, shard)) {
            let Some(idle) = self.idle_by_queue.get(queue) else { continue };
            let prefers_queue = |id: &&u64| {
                let queues = self.waiters.get(id).map(|waiter| &waiter.request.queues);
                queues.and_then(|queues| queues.iter().find(|name| self.ready_shards.contains_key(*name)))
                    == Some(queue)
            };
            ids.extend(idle.iter().filter(prefers_queue).take(limit));
        }
        // New ones for whose queues something is known stand in line with those above.
        let has_no_known_shard =
            |id: &&u64| self.waiters.get(id).is_some_and(|waiter| self.preferred_ready_shards(waiter).is_none());
        let unchecked = self.unchecked.iter().filter(has_no_known_shard);
        ids.extend(unchecked.filter(|id| self.next_shard(**id) == Some(shard)).take(MAX_BATCH_WAITERS));
        ids.into_iter().take(MAX_BATCH_WAITERS).collect()
    }
}

#[cfg(test)]
mod tests {
    use crate::dispatch::claim::wait_queue::*;

    fn queue(name: &str) -> QueueName {
        QueueName::parse(name).unwrap()
    }

    fn add_waiter(wait_queue: &mut WaitQueue, queues: &[&str]) -> (u64, oneshot::Receiver<Result<Delivery>>) {
        let (reply, reply_receiver) = oneshot::channel();
        let queues = queues.iter().map(|name| queue(name)).collect();
        let request = ClaimRequest { queues, max: 1, lease_ms: 1000, worker: "w".into(), claim: None };
        (wait_queue.add(request, reply, true), reply_receiver)
    }

    #[test]
    fn new_waiter_checks_every_shard_once_then_idles() {
        let mut wait_queue = WaitQueue::new(4);
        let (id, _reply) = add_waiter(&mut wait_queue, &["q"]);
        let mut checked = BTreeSet::new();
        while let Some(shard) = wait_queue.next_shard(id) {
            assert_eq!(wait_queue.eligible(shard), [id]);
            wait_queue.deindex(id);
            wait_queue.waiters.get_mut(&id).unwrap().unchecked_shards.remove(&shard);
            wait_queue.index(id);
            checked.insert(shard);
        }
        assert_eq!(checked, BTreeSet::from([0, 1, 2, 3]));
        assert!(!wait_queue.is_finished(id));
    }

    #[test]
    fn waiter_goes_to_best_priority_of_its_preferred_queue() {
        let mut wait_queue = WaitQueue::new(4);
        let (id, _reply) = add_waiter(&mut wait_queue, &["first", "second"]);
        wait_queue.set_ready(&queue("second"), 0, 9);
        assert_eq!(wait_queue.next_shard(id), Some(0));
        wait_queue.set_ready(&queue("first"), 1, 2);
        wait_queue.set_ready(&queue("first"), 2, 7);
        assert_eq!(wait_queue.next_shard(id), Some(2));
        assert!(wait_queue.eligible(0).is_empty() && wait_queue.eligible(1).is_empty());
    }

    #[test]
    fn batch_limit_starts_small_and_doubles_after_full_batches() {
        let mut wait_queue = WaitQueue::new(1);
        let (ids, _replies): (Vec<u64>, Vec<_>) = (0..300).map(|_| add_waiter(&mut wait_queue, &["q"])).unzip();
        assert_eq!(wait_queue.eligible(0), ids[..100], "new ones are all looked for");
        wait_queue.set_ready(&queue("q"), 0, 4);
        assert_eq!(wait_queue.eligible(0), ids[..4], "nobody is overtaken by a new one");
        wait_queue.set_batch_limit(0, 4);
        assert_eq!(wait_queue.eligible(0), ids[..8]);
        wait_queue.set_batch_limit(0, 90);
        assert_eq!(wait_queue.eligible(0), ids[..100]);
        wait_queue.set_batch_limit(0, 0);
        assert_eq!(wait_queue.eligible(0), ids[..4]);
    }

    #[test]
    fn wakeup_during_a_call_outlives_its_empty_result() {
        let mut wait_queue = WaitQueue::new(1);
        let (_, _reply) = add_waiter(&mut wait_queue, &["q"]);
        wait_queue.begin_call(0);
        wait_queue.record_wakeup(&queue("q"), 0, 4);
        wait_queue.clear_ready(&queue("q"), 0);
        assert!(wait_queue.is_ready(&queue("q"), 0));
        wait_queue.begin_call(0);
        wait_queue.clear_ready(&queue("q"), 0);
        assert!(!wait_queue.is_ready(&queue("q"), 0));
    }

    #[test]
    fn unavailable_shard_is_not_waited_for() {
        let mut wait_queue = WaitQueue::new(2);
        let (id, _reply) = add_waiter(&mut wait_queue, &["q"]);
        let unavailable = Error::Unavailable("away".into());
        assert!(wait_queue.mark_unavailable(0, &unavailable).is_empty());
        assert_eq!(wait_queue.next_shard(id), Some(1));
        assert_eq!(wait_queue.mark_unavailable(1, &unavailable), [id], "nowhere is left to look");
        wait_queue.mark_available(0);
        assert_eq!(wait_queue.next_shard(id), Some(0));
        assert!(!wait_queue.is_finished(id));
    }

    #[test]
    fn queue_without_waiters_is_forgotten() {
        let mut wait_queue = WaitQueue::new(1);
        let (id, _reply) = add_waiter(&mut wait_queue, &["q"]);
        wait_queue.set_ready(&queue("other"), 0, 4);
        wait_queue.set_ready(&queue("q"), 0, 4);
        drop(wait_queue.remove(id));
        assert!(!wait_queue.is_ready(&queue("q"), 0) && !wait_queue.is_ready(&queue("other"), 0));
    }
}
