//! Knowledge of ready tasks, by queue and shard.
//!
//! Claim calls, polls and surveys are checks: they read whether a queue has ready tasks in a shard. A check that found
//! none counts only if no wake-up of that queue and shard has arrived since it was sent. The task of a later wake-up may
//! have been written after the check read Redis.

use std::collections::{BTreeMap, HashMap};

use crate::domain::queue::QueueName;

/// A point in the sequence of the wake-ups received. A check remembers the epoch at which it was sent.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default, Debug)]
pub(super) struct Epoch(u64);

/// A queue with waiters.
#[derive(Default)]
struct Entry {
    waiters: usize,
    /// The epoch from which on its wake-ups are recorded.
    since: Epoch,
    /// By shard: the epoch of its last wake-up.
    woken_at: BTreeMap<usize, Epoch>,
}

/// The queues with waiters, and the shards known to have ready tasks for them.
#[derive(Default)]
pub(super) struct ReadyCache {
    /// The epoch of the last wake-up of any queue.
    epoch: Epoch,
    entries: HashMap<QueueName, Entry>,
    /// By queue: the shards known to have ready tasks, with their highest priority.
    ready: HashMap<QueueName, BTreeMap<usize, u8>>,
}

impl ReadyCache {
    /// Returns the current epoch, for a check that is about to be sent.
    pub(super) fn epoch(&self) -> Epoch {
        self.epoch
    }

    /// Counts a waiter of the queue.
    pub(super) fn add_waiter(&mut self, queue: &QueueName) {
        let new_entry = || Entry { since: self.epoch, ..Entry::default() };
        self.entries.entry(queue.clone()).or_insert_with(new_entry).waiters += 1;
    }

    /// Counts a waiter off. A queue without waiters is forgotten.
    pub(super) fn remove_waiter(&mut self, queue: &QueueName) {
        let Some(entry) = self.entries.get_mut(queue) else { return };
        entry.waiters -= 1;
        if entry.waiters == 0 {
            self.entries.remove(queue);
            self.ready.remove(queue);
        }
    }

    /// Records a wake-up. Returns whether the queue has waiters.
    pub(super) fn record_wakeup(&mut self, queue: &QueueName, shard: usize, priority: u8) -> bool {
        // Also without waiters: a check may be in flight when the next waiter makes another entry.
        self.epoch.0 += 1;
        let Some(entry) = self.entries.get_mut(queue) else { return false };
        entry.woken_at.insert(shard, self.epoch);
        self.ready.entry(queue.clone()).or_default().insert(shard, priority);
        true
    }

    /// Applies what a check sent at `sent_at` found: the highest priority that is ready, or `None`. A wake-up since then
    /// takes precedence over `None` and over a lower priority.
    pub(super) fn apply_check(&mut self, queue: &QueueName, shard: usize, sent_at: Epoch, found: Option<u8>) {
        let Some(entry) = self.entries.get_mut(queue) else { return };
        let last_wakeup = entry.woken_at.get(&shard).copied().unwrap_or_default();
        let is_current = entry.since.max(last_wakeup) <= sent_at;
        match found {
            Some(priority) => {
                let known = self.ready.entry(queue.clone()).or_default().entry(shard).or_insert(priority);
                *known = if is_current { priority } else { priority.max(*known) };
            }
            None if is_current => self.remove_ready(queue, shard),
            None => {}
        }
    }

    /// Forgets the ready tasks of a queue in a shard.
    pub(super) fn remove_ready(&mut self, queue: &QueueName, shard: usize) {
        if let Some(shards) = self.ready.get_mut(queue) {
            shards.remove(&shard);
            if shards.is_empty() {
                self.ready.remove(queue);
            }
        }
    }

    /// Forgets the ready tasks of a shard.
    pub(super) fn forget_shard(&mut self, shard: usize) {
        self.ready.retain(|_, shards| {
            shards.remove(&shard);
            !shards.is_empty()
        });
    }

    /// Returns the shards known to have ready tasks of the queue, with their highest priority. `None`: no shard is.
    pub(super) fn ready_shards(&self, queue: &QueueName) -> Option<&BTreeMap<usize, u8>> {
        self.ready.get(queue)
    }

    /// Queues that are known to have ready tasks.
    pub(super) fn ready_queues(&self) -> impl Iterator<Item = &QueueName> {
        self.ready.keys()
    }

    /// Queues that have waiters.
    pub(super) fn queues(&self) -> Vec<QueueName> {
        self.entries.keys().cloned().collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SHARD: usize = 0;

    fn queue() -> QueueName {
        QueueName::parse("q").unwrap()
    }

    /// A cache with one waiter.
    fn cache() -> ReadyCache {
        let mut cache = ReadyCache::default();
        cache.add_waiter(&queue());
        cache
    }

    fn known(cache: &ReadyCache) -> Option<u8> {
        cache.ready_shards(&queue()).and_then(|shards| shards.get(&SHARD)).copied()
    }

    #[test]
    fn check_sent_after_a_wakeup_counts() {
        let mut cache = cache();
        cache.record_wakeup(&queue(), SHARD, 4);
        let check = cache.epoch();
        cache.apply_check(&queue(), SHARD, check, None);
        assert_eq!(known(&cache), None);
    }

    #[test]
    fn empty_check_sent_before_a_wakeup_does_not_count() {
        let mut cache = cache();
        let check = cache.epoch();
        cache.record_wakeup(&queue(), SHARD, 4);
        cache.apply_check(&queue(), SHARD, check, None);
        assert_eq!(known(&cache), Some(4));
    }

    #[test]
    fn empty_poll_sent_before_a_wakeup_does_not_count_after_a_call_began() {
        let mut cache = cache();
        let poll = cache.epoch();
        cache.record_wakeup(&queue(), SHARD, 4);
        // A claim call is sent and returns, and has left a task.
        let call = cache.epoch();
        cache.apply_check(&queue(), SHARD, call, Some(4));
        cache.apply_check(&queue(), SHARD, poll, None);
        assert_eq!(known(&cache), Some(4));
    }

    #[test]
    fn wakeup_of_another_queue_or_shard_changes_nothing() {
        let (mut cache, other) = (cache(), QueueName::parse("other").unwrap());
        cache.add_waiter(&other);
        cache.record_wakeup(&queue(), SHARD, 4);
        let check = cache.epoch();
        cache.record_wakeup(&other, SHARD, 4);
        cache.record_wakeup(&queue(), SHARD + 1, 4);
        cache.apply_check(&queue(), SHARD, check, None);
        assert_eq!(known(&cache), None);
        assert!(cache.ready_shards(&other).is_some());
    }

    #[test]
    fn priority_of_a_wakeup_outlives_a_check_sent_before() {
        let mut cache = cache();
        let check = cache.epoch();
        cache.record_wakeup(&queue(), SHARD, 9);
        cache.apply_check(&queue(), SHARD, check, Some(4));
        assert_eq!(known(&cache), Some(9));
        let check = cache.epoch();
        cache.apply_check(&queue(), SHARD, check, Some(4));
        assert_eq!(known(&cache), Some(4));
    }

    #[test]
    fn check_does_not_count_for_waiters_that_came_after_a_missed_wakeup() {
        let mut cache = cache();
        let check = cache.epoch();
        cache.remove_waiter(&queue());
        assert!(!cache.record_wakeup(&queue(), SHARD, 4), "the queue is forgotten");
        cache.add_waiter(&queue());
        let later = cache.epoch();
        cache.apply_check(&queue(), SHARD, later, Some(4));
        cache.apply_check(&queue(), SHARD, check, None);
        assert_eq!(known(&cache), Some(4));
    }
}
