//! Knowledge of ready tasks, by queue and shard. Entries may be negative: no task is ready.
//!
//! Claim calls, polls and surveys are checks: they read whether a queue has ready tasks in a shard. A check that found
//! none counts only if no wake-up of that queue and shard has arrived since it was sent. The task of a later wake-up may
//! have been written after the check read Redis.
//!
//! A negative entry holds until the next wake-up, so wake-ups must arrive: from before the check was sent, without an
//! interruption. A new waiter that waits for a wake-up need not check such a shard.

use std::collections::{BTreeMap, HashMap};

use super::shard_set::ShardSet;
use crate::domain::queue::QueueName;
use crate::store::ops::claim::Front;

/// Queues without waiters that are remembered. Clients make up names.
const MAX_IDLE_QUEUES: usize = 1000;
/// Polls of each shard after which a queue without waiters is forgotten. Each poll reads it.
const IDLE_POLLS: usize = 2;

/// A point in the sequence of the wake-ups received. A check remembers the epoch at which it was sent.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default, Debug)]
pub(in crate::dispatch) struct Epoch(u64);

/// A queue that has waiters, or had some lately.
#[derive(Default)]
struct Entry {
    waiters: usize,
    /// Polls since the last waiter ended.
    idle_polls: usize,
    /// The epoch from which on its wake-ups are recorded.
    since: Epoch,
    /// By shard: the epoch of its last wake-up.
    woken_at: BTreeMap<usize, Epoch>,
    /// Shards known to have no ready task: the negative entries.
    empty_shards: ShardSet,
}

/// The subscription of a shard.
#[derive(Clone, Default)]
struct ShardState {
    /// The epoch from which on wake-ups arrive without an interruption. `None`: they do not arrive.
    subscribed_since: Option<Epoch>,
    /// Whether it may have negative entries.
    has_negative: bool,
}

/// The queues that are remembered, and the shards known to have ready tasks for them.
#[derive(Default)]
pub(super) struct ReadyCache {
    /// The epoch of the last wake-up of any queue.
    epoch: Epoch,
    shards: Vec<ShardState>,
    entries: HashMap<QueueName, Entry>,
    /// Entries without waiters.
    idle_count: usize,
    /// By queue: the shards known to have ready tasks, with their highest priority.
    ready: HashMap<QueueName, BTreeMap<usize, u8>>,
}

impl ReadyCache {
    pub(super) fn new(shard_count: usize) -> Self {
        ReadyCache { shards: vec![ShardState::default(); shard_count], ..ReadyCache::default() }
    }

    /// Returns the current epoch, for a check that is about to be sent.
    pub(super) fn epoch(&self) -> Epoch {
        self.epoch
    }

    /// Counts a waiter of the queue.
    pub(super) fn add_waiter(&mut self, queue: &QueueName) {
        match self.entries.get_mut(queue) {
            Some(entry) => {
                self.idle_count -= usize::from(entry.waiters == 0);
                entry.waiters += 1;
                entry.idle_polls = 0;
            }
            None => {
                self.entries.insert(queue.clone(), Entry { waiters: 1, since: self.epoch, ..Entry::default() });
            }
        }
    }

    /// Counts a waiter off. A queue without waiters is remembered for a while.
    pub(super) fn remove_waiter(&mut self, queue: &QueueName) {
        let Some(entry) = self.entries.get_mut(queue) else { return };
        entry.waiters -= 1;
        if entry.waiters > 0 {
            return;
        }
        if self.idle_count < MAX_IDLE_QUEUES {
            self.idle_count += 1;
        } else {
            self.entries.remove(queue);
            self.ready.remove(queue);
        }
    }

    /// Records a wake-up. Returns whether the queue has waiters.
    pub(super) fn record_wakeup(&mut self, queue: &QueueName, shard: usize, priority: u8) -> bool {
        // Also of another queue: a check may be in flight when the next waiter makes its entry.
        self.epoch.0 += 1;
        let Some(entry) = self.entries.get_mut(queue) else { return false };
        entry.woken_at.insert(shard, self.epoch);
        entry.empty_shards.remove(shard);
        self.ready.entry(queue.clone()).or_default().insert(shard, priority);
        entry.waiters > 0
    }

    /// Records a task that this server has submitted by a call sent at `sent_at`, like its wake-up. The wake-up may still
    /// be on its way; if one has arrived since, the task may be claimed by now.
    pub(super) fn record_submit(&mut self, queue: &QueueName, shard: usize, priority: u8, sent_at: Epoch) {
        if let Some(known) = self.ready.get_mut(queue).and_then(|shards| shards.get_mut(&shard)) {
            *known = priority.max(*known);
        } else if self.last_wakeup(queue, shard) <= sent_at {
            self.record_wakeup(queue, shard, priority);
        }
    }

    fn last_wakeup(&self, queue: &QueueName, shard: usize) -> Epoch {
        self.entries.get(queue).and_then(|entry| entry.woken_at.get(&shard)).copied().unwrap_or_default()
    }

    /// Applies what a check sent at `sent_at` found. A wake-up since then takes precedence over no task and over a lower
    /// priority.
    pub(super) fn apply_check(&mut self, queue: &QueueName, shard: usize, sent_at: Epoch, found: Front) {
        let last_wakeup = self.last_wakeup(queue, shard);
        let Some(entry) = self.entries.get_mut(queue) else { return };
        let is_current = entry.since.max(last_wakeup) <= sent_at;
        match found {
            Front::Ready(priority) => {
                entry.empty_shards.remove(shard);
                let known = self.ready.entry(queue.clone()).or_default().entry(shard).or_insert(priority);
                *known = if is_current { priority } else { priority.max(*known) };
            }
            Front::Blocked | Front::Empty if !is_current => {}
            Front::Blocked => {
                entry.empty_shards.remove(shard);
                self.remove_ready(queue, shard);
            }
            Front::Empty => {
                if let Some(state) = self.shards.get_mut(shard)
                    && state.subscribed_since.is_some_and(|since| since <= sent_at)
                {
                    state.has_negative = true;
                    entry.empty_shards.insert(shard);
                }
                self.remove_ready(queue, shard);
            }
        }
    }

    /// Forgets the ready tasks of a queue in a shard.
    pub(super) fn remove_ready(&mut self, queue: &QueueName, shard: usize) {
        let Some(shards) = self.ready.get_mut(queue) else { return };
        shards.remove(&shard);
        if shards.is_empty() {
            self.ready.remove(queue);
        }
    }

    /// Forgets the ready tasks of a shard.
    pub(super) fn remove_ready_of(&mut self, shard: usize) {
        self.ready.retain(|_, shards| {
            shards.remove(&shard);
            !shards.is_empty()
        });
    }

    /// Forgets the negative entries of a shard. Checks that are in flight make none.
    pub(super) fn invalidate(&mut self, shard: usize) {
        let Some(state) = self.shards.get_mut(shard) else { return };
        self.epoch.0 += 1;
        state.subscribed_since = state.subscribed_since.map(|_| self.epoch);
        if std::mem::take(&mut state.has_negative) {
            self.entries.values_mut().for_each(|entry| entry.empty_shards.remove(shard));
        }
    }

    /// Forgets all negative entries: wake-ups do not arrive.
    pub(super) fn interrupt(&mut self) {
        self.shards.fill(ShardState::default());
        self.entries.values_mut().for_each(|entry| entry.empty_shards = ShardSet::default());
    }

    /// Records that the wake-ups of a shard arrive from now on.
    pub(super) fn resume(&mut self, shard: usize) {
        self.invalidate(shard);
        if let Some(state) = self.shards.get_mut(shard) {
            state.subscribed_since = Some(self.epoch);
        }
    }

    /// Returns the shards that may have ready tasks of one of these queues.
    pub(super) fn possible_shards(&self, queues: &[QueueName]) -> ShardSet {
        let mut possible = ShardSet::first(self.shards.len());
        let mut empty = possible.clone();
        for queue in queues {
            empty.keep_all(self.entries.get(queue).map_or(&ShardSet::EMPTY, |entry| &entry.empty_shards));
        }
        possible.remove_all(&empty);
        possible
    }

    /// Returns the shards known to have ready tasks of the queue, with their highest priority. `None`: no shard is.
    pub(super) fn ready_shards(&self, queue: &QueueName) -> Option<&BTreeMap<usize, u8>> {
        self.ready.get(queue)
    }

    /// Queues that are known to have ready tasks.
    pub(super) fn ready_queues(&self) -> impl ExactSizeIterator<Item = &QueueName> {
        self.ready.keys()
    }

    /// Returns the queues that a poll reads. Queues that have had no waiter for some polls are forgotten.
    pub(super) fn queues_to_poll(&mut self) -> Vec<QueueName> {
        let max_polls = IDLE_POLLS * self.shards.len();
        self.entries.retain(|queue, entry| {
            entry.idle_polls += usize::from(entry.waiters == 0);
            let is_kept = entry.idle_polls <= max_polls;
            if !is_kept {
                self.idle_count -= 1;
                self.ready.remove(queue);
            }
            is_kept
        });
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

    /// A cache of two shards with one waiter, to which wake-ups arrive.
    fn cache() -> ReadyCache {
        let mut cache = ReadyCache::new(2);
        cache.resume(SHARD);
        cache.add_waiter(&queue());
        cache
    }

    fn wake(cache: &mut ReadyCache, priority: u8) {
        cache.record_wakeup(&queue(), SHARD, priority);
    }

    fn apply(cache: &mut ReadyCache, sent_at: Epoch, found: Front) {
        cache.apply_check(&queue(), SHARD, sent_at, found);
    }

    /// Applies a check sent just now.
    fn check(cache: &mut ReadyCache, found: Front) {
        apply(cache, cache.epoch(), found);
    }

    fn known(cache: &ReadyCache) -> Option<u8> {
        cache.ready_shards(&queue()).and_then(|shards| shards.get(&SHARD)).copied()
    }

    fn is_negative(cache: &ReadyCache) -> bool {
        !cache.possible_shards(&[queue()]).contains(SHARD)
    }

    #[test]
    fn empty_check_sent_after_a_wakeup_counts_until_the_next() {
        let mut cache = cache();
        wake(&mut cache, 4);
        check(&mut cache, Front::Empty);
        assert!(known(&cache).is_none() && is_negative(&cache));
        wake(&mut cache, 4);
        assert!(known(&cache) == Some(4) && !is_negative(&cache));
    }

    #[test]
    fn empty_check_sent_before_a_wakeup_does_not_count() {
        let mut cache = cache();
        let sent_at = cache.epoch();
        wake(&mut cache, 4);
        apply(&mut cache, sent_at, Front::Empty);
        assert!(known(&cache) == Some(4) && !is_negative(&cache));
    }

    #[test]
    fn empty_poll_sent_before_a_wakeup_does_not_count_after_a_call_began() {
        let mut cache = cache();
        let poll = cache.epoch();
        wake(&mut cache, 4);
        // A claim call is sent, leaves a task, and returns before the poll.
        check(&mut cache, Front::Ready(4));
        apply(&mut cache, poll, Front::Empty);
        assert!(known(&cache) == Some(4) && !is_negative(&cache));
    }

    #[test]
    fn wakeup_of_another_queue_or_shard_changes_nothing() {
        let (mut cache, other) = (cache(), QueueName::parse("other").unwrap());
        cache.add_waiter(&other);
        wake(&mut cache, 4);
        let sent_at = cache.epoch();
        cache.record_wakeup(&other, SHARD, 4);
        cache.record_wakeup(&queue(), SHARD + 1, 4);
        apply(&mut cache, sent_at, Front::Empty);
        assert!(known(&cache).is_none() && is_negative(&cache));
        assert!(cache.ready_shards(&other).is_some());
    }

    #[test]
    fn priority_of_a_wakeup_outlives_a_check_sent_before() {
        let mut cache = cache();
        let sent_at = cache.epoch();
        wake(&mut cache, 9);
        apply(&mut cache, sent_at, Front::Ready(4));
        assert_eq!(known(&cache), Some(9));
        check(&mut cache, Front::Ready(4));
        assert_eq!(known(&cache), Some(4));
    }

    #[test]
    fn check_of_a_queue_with_passed_over_tasks_makes_no_negative_entry() {
        let mut cache = cache();
        check(&mut cache, Front::Empty);
        check(&mut cache, Front::Blocked);
        assert!(known(&cache).is_none() && !is_negative(&cache));
    }

    #[test]
    fn negative_entry_ends_with_the_subscription() {
        let mut cache = cache();
        check(&mut cache, Front::Empty);
        let sent_at = cache.epoch();
        cache.interrupt();
        assert!(!is_negative(&cache), "at once");
        check(&mut cache, Front::Empty);
        assert!(!is_negative(&cache), "no wake-up would end it");
        cache.resume(SHARD);
        apply(&mut cache, sent_at, Front::Empty);
        assert!(!is_negative(&cache), "a wake-up was lost since it was sent");
        check(&mut cache, Front::Empty);
        assert!(is_negative(&cache));
    }

    #[test]
    fn negative_entry_ends_when_its_shard_is_unavailable() {
        let mut cache = cache();
        check(&mut cache, Front::Empty);
        let sent_at = cache.epoch();
        cache.invalidate(SHARD);
        assert!(!is_negative(&cache));
        apply(&mut cache, sent_at, Front::Empty);
        assert!(!is_negative(&cache));
    }

    #[test]
    fn submit_of_this_server_ends_a_negative_entry_and_raises_a_priority() {
        let mut cache = cache();
        let sent_at = cache.epoch();
        check(&mut cache, Front::Empty);
        cache.record_submit(&queue(), SHARD, 4, sent_at);
        apply(&mut cache, sent_at, Front::Empty);
        assert!(known(&cache) == Some(4) && !is_negative(&cache));
        cache.record_submit(&queue(), SHARD, 9, sent_at);
        cache.record_submit(&queue(), SHARD, 1, sent_at);
        assert_eq!(known(&cache), Some(9));
        // Its wake-up has arrived, and the task was claimed, before the submit is answered.
        check(&mut cache, Front::Empty);
        cache.record_submit(&queue(), SHARD, 4, sent_at);
        assert!(is_negative(&cache));
    }

    #[test]
    fn wakeups_count_for_a_queue_without_waiters_until_it_is_forgotten() {
        let mut cache = cache();
        check(&mut cache, Front::Empty);
        cache.remove_waiter(&queue());
        assert!(is_negative(&cache), "the next waiter need not check");
        wake(&mut cache, 4);
        assert_eq!(known(&cache), Some(4));
        let polls = std::iter::repeat_with(|| cache.queues_to_poll()).take_while(|queues| *queues == [queue()]);
        assert_eq!(polls.take(100).count(), 2 * IDLE_POLLS);
        assert_eq!(known(&cache), None);
    }

    #[test]
    fn queues_without_waiters_are_bounded() {
        let mut cache = ReadyCache::new(1);
        for number in 0..2 * MAX_IDLE_QUEUES {
            let queue = QueueName::parse(&format!("q{number}")).unwrap();
            cache.add_waiter(&queue);
            cache.remove_waiter(&queue);
        }
        assert_eq!((cache.entries.len(), cache.idle_count), (MAX_IDLE_QUEUES, MAX_IDLE_QUEUES));
    }
}
