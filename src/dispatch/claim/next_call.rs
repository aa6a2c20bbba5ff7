//! The choice of the next call: the shard to check for a waiter, and the waiters that a shard's call includes.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Instant;

use rand::RngExt as _;

use super::wait_queue::{INITIAL_BATCH_LIMIT, WaitQueue};
use crate::domain::queue::QueueName;

/// Waiters in one call.
const MAX_BATCH_WAITERS: usize = 100;

impl WaitQueue {
    /// Whether no shard has a higher priority ready in this queue.
    fn has_best_priority(&self, queue: &QueueName, shard: usize) -> bool {
        self.ready_cache.ready_shards(queue).is_some_and(|shards| {
            shards.get(&shard).is_some_and(|priority| shards.values().all(|other| other <= priority))
        })
    }

    /// The queues that are known to have ready tasks, with their waiters in no call. Of the ready queues and of those that
    /// have waiters, it goes through the fewer.
    fn idle_of_ready_queues(&self) -> Vec<(&QueueName, &BTreeSet<u64>)> {
        let (ready, idle) = (self.ready_cache.ready_queues(), &self.idle_by_queue);
        match ready.len() <= idle.len() {
            true => ready.filter_map(|queue| idle.get_key_value(queue)).collect(),
            false => idle.iter().filter(|(queue, _)| self.ready_cache.ready_shards(queue).is_some()).collect(),
        }
    }

    /// Whether the queue is known to have ready tasks in the shard.
    pub(super) fn is_ready(&self, queue: &QueueName, shard: usize) -> bool {
        self.ready_cache.ready_shards(queue).is_some_and(|shards| shards.contains_key(&shard))
    }

    /// Whether the queue is known to have ready tasks in another shard.
    pub(super) fn is_ready_elsewhere(&self, queue: &QueueName, shard: usize) -> bool {
        self.ready_cache.ready_shards(queue).is_some_and(|shards| shards.keys().any(|ready| *ready != shard))
    }

    /// Sets the limit of the next call to twice the waiters served. An empty call thus stays cheap with many waiters,
    /// and a burst of tasks reaches all waiters within a few calls.
    pub(super) fn set_batch_limit(&mut self, shard: usize, served: usize) {
        if let Some(limit) = self.batch_limits.get_mut(shard) {
            *limit = (2 * served).clamp(INITIAL_BATCH_LIMIT, MAX_BATCH_WAITERS);
        }
    }

    /// Whether the queue's tasks in the shard are left to other servers for now.
    pub(super) fn is_yielded(&self, queue: &QueueName, shard: usize) -> bool {
        self.sharing.has_yielded() && self.sharing.is_yielded(queue, shard, Instant::now())
    }

    /// Whether the only tasks of these queues that the shard may have are left to other servers. A claim call follows once
    /// they are no longer left.
    pub(super) fn is_left_to_others(&self, queues: &[QueueName], shard: usize) -> bool {
        if !self.sharing.has_yielded() {
            return false;
        }
        let (left, own): (Vec<QueueName>, _) = queues.iter().cloned().partition(|queue| self.is_yielded(queue, shard));
        !left.is_empty() && (own.is_empty() || !self.ready_cache.possible_shards(&own).contains(shard))
    }

    /// The ready shards of the first of these queues that has any.
    pub(super) fn preferred_ready_shards(&self, queues: &[QueueName]) -> Option<&BTreeMap<usize, u8>> {
        queues.iter().find_map(|queue| self.ready_cache.ready_shards(queue))
    }

    /// The queues that a call reads in the shard for a waiter, in order of preference. Behind a queue that is ready in another
    /// shard, none: its tasks there come before those of the next queue here.
    pub(super) fn queues_to_read<'a>(
        &'a self,
        queues: &'a [QueueName],
        shard: usize,
        is_unchecked: bool,
    ) -> impl Iterator<Item = &'a QueueName> {
        let mut is_last = false;
        let may_have_tasks = move |queue: &&QueueName| is_unchecked || self.is_ready(queue, shard);
        queues
            .iter()
            .filter(may_have_tasks)
            .take_while(move |queue| !std::mem::replace(&mut is_last, self.is_ready_elsewhere(queue, shard)))
    }

    /// The shard to check next for a waiter: the one with the highest priority in its preferred ready queue, of several
    /// any, else an unchecked one. `None` if there is none for now. Choosing at random gives each shard its turns: in a
    /// fixed order, tasks of one shard would keep those of all others waiting.
    pub(super) fn next_shard(&self, id: u64) -> Option<usize> {
        let waiter = self.waiters.get(&id)?;
        if let Some(shards) = self.preferred_ready_shards(&waiter.request.queues) {
            return any_best_shard(shards);
        }
        // Waiters start at different shards, which spreads their calls.
        let start = (id % self.shard_count.max(1) as u64) as usize;
        waiter.unchecked_shards.next_from(start)
    }

    /// The waiters of the shard's next call, in order of arrival. Shards of equal priority all qualify.
    pub(super) fn eligible(&self, shard: usize) -> Vec<u64> {
        let mut ids = BTreeSet::new();
        let limit = self.batch_limits.get(shard).copied().unwrap_or(MAX_BATCH_WAITERS);
        for (queue, idle) in self.idle_of_ready_queues() {
            if !self.has_best_priority(queue, shard) {
                continue;
            }
            let is_left = self.is_yielded(queue, shard);
            let prefers_queue = |id: &&u64| {
                self.waiters.get(id).is_some_and(|waiter| {
                    let is_ready = |name: &&QueueName| self.ready_cache.ready_shards(name).is_some();
                    let preferred = waiter.request.queues.iter().find(is_ready);
                    preferred == Some(queue) && !(is_left && waiter.is_long_poll)
                })
            };
            ids.extend(idle.iter().filter(prefers_queue).take(limit));
        }
        // The waiters above include the new ones with a known ready shard.
        let has_no_known_shard = |id: &&u64| {
            self.waiters.get(id).is_some_and(|waiter| self.preferred_ready_shards(&waiter.request.queues).is_none())
        };
        let unchecked = self.unchecked.iter().filter(has_no_known_shard);
        ids.extend(unchecked.filter(|id| self.next_shard(**id) == Some(shard)).take(MAX_BATCH_WAITERS));
        ids.into_iter().take(MAX_BATCH_WAITERS).collect()
    }
}

/// Any of the shards with the highest priority. Choosing at random gives each its turns.
pub(super) fn any_best_shard(shards: &BTreeMap<usize, u8>) -> Option<usize> {
    let highest = shards.values().max()?;
    let mut best = shards.iter().filter(|(_, priority)| *priority == highest).map(|(shard, _)| *shard);
    // One random number, however many shards there are.
    let index = rand::rng().random_range(0..best.clone().count());
    best.nth(index)
}

#[cfg(test)]
mod tests {
    use super::super::wait_queue::tests::{add_waiter, queue};
    use super::*;

    #[test]
    fn waiter_goes_to_best_priority_of_its_preferred_queue() {
        let mut wait_queue = WaitQueue::new(4);
        let (id, _reply) = add_waiter(&mut wait_queue, &["first", "second"]);
        wait_queue.record_wakeup(&queue("second"), 0, 9);
        assert_eq!(wait_queue.next_shard(id), Some(0));
        wait_queue.record_wakeup(&queue("first"), 1, 2);
        wait_queue.record_wakeup(&queue("first"), 2, 7);
        assert_eq!(wait_queue.next_shard(id), Some(2));
        assert!(wait_queue.eligible(0).is_empty() && wait_queue.eligible(1).is_empty());
    }

    #[test]
    fn waiter_goes_to_any_shard_of_the_best_priority_and_to_no_other() {
        let mut wait_queue = WaitQueue::new(4);
        let (id, _reply) = add_waiter(&mut wait_queue, &["q"]);
        for (shard, priority) in [(0, 7), (1, 2), (2, 7), (3, 7)] {
            wait_queue.record_wakeup(&queue("q"), shard, priority);
        }
        let chosen: BTreeSet<_> = (0..1000).map(|_| wait_queue.next_shard(id)).collect();
        assert_eq!(chosen, BTreeSet::from([Some(0), Some(2), Some(3)]));
    }

    #[test]
    fn waiters_of_ready_queues_are_eligible_among_many_other_queues() {
        for (others_are_ready, name) in [(true, "more queues are ready"), (false, "more queues have waiters")] {
            let mut wait_queue = WaitQueue::new(1);
            let mut replies = Vec::new();
            for number in 0..9 {
                let other = format!("other{number}");
                let (id, reply) = add_waiter(&mut wait_queue, &[&other]);
                wait_queue.waiters.get_mut(&id).unwrap().unchecked_shards.remove(0);
                match others_are_ready {
                    true => {
                        wait_queue.record_wakeup(&queue(&other), 0, 4);
                        drop(wait_queue.remove(id));
                    }
                    false => replies.push(reply),
                }
            }
            wait_queue.unchecked.clear();
            let (id, _reply) = add_waiter(&mut wait_queue, &["q"]);
            wait_queue.record_wakeup(&queue("q"), 0, 4);
            assert_eq!(wait_queue.eligible(0), [id], "{name}");
        }
    }

    #[test]
    fn batch_limit_starts_small_and_doubles_after_full_batches() {
        let mut wait_queue = WaitQueue::new(1);
        let (ids, _replies): (Vec<u64>, Vec<_>) = (0..300).map(|_| add_waiter(&mut wait_queue, &["q"])).unzip();
        assert_eq!(wait_queue.eligible(0), ids[..100], "a first check includes every waiter");
        wait_queue.record_wakeup(&queue("q"), 0, 4);
        assert_eq!(wait_queue.eligible(0), ids[..4], "waiters are served in order of arrival");
        wait_queue.set_batch_limit(0, 4);
        assert_eq!(wait_queue.eligible(0), ids[..8]);
        wait_queue.set_batch_limit(0, 90);
        assert_eq!(wait_queue.eligible(0), ids[..100]);
        wait_queue.set_batch_limit(0, 0);
        assert_eq!(wait_queue.eligible(0), ids[..4]);
    }
}
