//! Even shares: the tasks of a queue go in turn to the waiters of all servers.
//!
//! Each server announces how many waiters it has for each queue. A server hands over only the share of its own waiters,
//! and yields the other tasks: they become ready, and for a moment its own waiters leave them to those of other servers.
//! A server that does not hear its own announcements hands nothing over, because it may not hear those of others.

use std::cmp::Reverse;
use std::collections::{BTreeMap, HashMap, HashSet};
use std::time::{Duration, Instant};

use crate::domain::queue::QueueName;

/// The time for which own waiters leave a task to those of other servers.
pub(super) const YIELD_TIME: Duration = Duration::from_millis(50);
/// The time for which an announcement counts: three intervals.
const ANNOUNCEMENT_TTL: Duration = Duration::from_secs(3);
/// Queues in an announcement: those with the most waiters.
const MAX_ANNOUNCED_QUEUES: usize = 100;

/// The waiters of the other servers, and whose turn it is.
#[derive(Debug)]
pub(super) struct Sharing {
    /// Identifies the announcements of this server.
    server: u64,
    /// Whether one of them has arrived since wake-ups were last interrupted.
    is_heard: bool,
    /// The queues of its last announcement.
    announced: HashSet<QueueName>,
    /// By server: when its last announcement arrived, and its waiters by queue.
    others: HashMap<u64, (Instant, HashMap<QueueName, usize>)>,
    /// By queue that others have waiters for: own waiters, summed up over the tasks since the last turn.
    turns: HashMap<QueueName, usize>,
    /// By queue and shard: the time until which own waiters leave its tasks to others.
    yielded: HashMap<QueueName, BTreeMap<usize, Instant>>,
}

impl Default for Sharing {
    fn default() -> Self {
        Sharing {
            server: rand::random(),
            is_heard: false,
            announced: HashSet::new(),
            others: HashMap::new(),
            turns: HashMap::new(),
            yielded: HashMap::new(),
        }
    }
}

impl Sharing {
    /// Records an announcement.
    pub(super) fn record(&mut self, server: u64, waiters: Vec<(QueueName, usize)>, now: Instant) {
        if server == self.server {
            self.is_heard = true;
            return;
        }
        self.others.retain(|_, (heard_at, _)| now - *heard_at < ANNOUNCEMENT_TTL);
        self.others.insert(server, (now, waiters.into_iter().collect()));
        let others = &self.others;
        self.turns.retain(|queue, _| others.values().any(|(_, waiters)| waiters.contains_key(queue)));
    }

    /// Whether announcements arrive.
    pub(super) fn is_heard(&self) -> bool {
        self.is_heard
    }

    /// Announcements may be lost from now on.
    pub(super) fn interrupt(&mut self) {
        self.is_heard = false;
    }

    /// Whether one of these queues is not in the last announcement.
    pub(super) fn has_news(&self, queues: &[QueueName]) -> bool {
        queues.iter().any(|queue| !self.announced.contains(queue))
    }

    /// Returns the id of this server and its waiters by queue, for an announcement. `None`: there are none, as before.
    pub(super) fn announce(&mut self, mut waiters: Vec<(QueueName, usize)>) -> Option<(u64, Vec<(QueueName, usize)>)> {
        if waiters.is_empty() && self.announced.is_empty() {
            return None;
        }
        waiters.sort_by_key(|(_, count)| Reverse(*count));
        waiters.truncate(MAX_ANNOUNCED_QUEUES);
        self.announced = waiters.iter().map(|(queue, _)| queue.clone()).collect();
        Some((self.server, waiters))
    }

    /// Returns how many of `tasks` new tasks of the queue are for the `own` waiters.
    pub(super) fn own_share(&mut self, queue: &QueueName, own: usize, tasks: usize, now: Instant) -> usize {
        if !self.is_heard {
            return 0;
        }
        let fresh = self.others.values().filter(|(heard_at, _)| now - *heard_at < ANNOUNCEMENT_TTL);
        let others: usize = fresh.filter_map(|(_, waiters)| waiters.get(queue)).sum();
        if others == 0 {
            self.turns.remove(queue);
            return tasks;
        }
        let turn = self.turns.entry(queue.clone()).or_default();
        let sum = *turn + tasks * own;
        *turn = sum % (own + others);
        sum / (own + others)
    }

    /// Leaves the tasks of the queue in the shard to other servers until `until`.
    pub(super) fn begin_yield(&mut self, queue: &QueueName, shard: usize, until: Instant) {
        self.yielded.entry(queue.clone()).or_default().insert(shard, until);
    }

    /// Whether the tasks of the queue in the shard are left to other servers.
    pub(super) fn is_yielded(&self, queue: &QueueName, shard: usize, now: Instant) -> bool {
        self.yielded.get(queue).and_then(|shards| shards.get(&shard)).is_some_and(|until| now < *until)
    }

    /// Whether any task is left to other servers.
    pub(super) fn has_yielded(&self) -> bool {
        !self.yielded.is_empty()
    }

    /// Records that the queue has no ready task left in the shard.
    pub(super) fn end_yield(&mut self, queue: &QueueName, shard: usize) {
        self.yielded.retain(|name, shards| {
            if name == queue {
                shards.remove(&shard);
            }
            !shards.is_empty()
        });
    }

    /// Takes the queues whose tasks in the shard are no longer left to others.
    pub(super) fn take_ended_yields(&mut self, shard: usize, now: Instant) -> Vec<QueueName> {
        let mut ended = Vec::new();
        self.yielded.retain(|queue, shards| {
            if shards.get(&shard).is_some_and(|until| *until <= now) {
                shards.remove(&shard);
                ended.push(queue.clone());
            }
            !shards.is_empty()
        });
        ended
    }

    /// Records that no other server took a task that was left to them: they count half until their next announcements.
    pub(super) fn halve_others(&mut self, queue: &QueueName) {
        for (_, waiters) in self.others.values_mut() {
            waiters.get_mut(queue).into_iter().for_each(|count| *count /= 2);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn queue() -> QueueName {
        QueueName::parse("q").unwrap()
    }

    /// A server that hears its announcements and that another one has `others` waiters.
    fn sharing(others: usize, now: Instant) -> Sharing {
        let mut sharing = Sharing::default();
        let (server, waiters) = sharing.announce(vec![(queue(), 1)]).unwrap();
        sharing.record(server, waiters, now);
        sharing.record(server + 1, vec![(queue(), others)], now);
        sharing
    }

    #[test]
    fn own_share_follows_the_numbers_of_waiters() {
        let now = Instant::now();
        for (own, others, expected) in [(32, 32, 30), (1, 2, 20), (3, 1, 45), (5, 0, 60)] {
            let mut sharing = sharing(others, now);
            let one_by_one: usize = (0..60).map(|_| sharing.own_share(&queue(), own, 1, now)).sum();
            let together = sharing.own_share(&queue(), own, 60, now);
            assert_eq!((one_by_one, together), (expected, expected), "{own} own, {others} others");
        }
    }

    #[test]
    fn own_share_is_all_once_the_others_are_silent_or_take_nothing() {
        let now = Instant::now();
        let mut sharing = sharing(3, now);
        assert_eq!(sharing.own_share(&queue(), 1, 4, now), 1);
        assert_eq!(sharing.own_share(&queue(), 1, 4, now + ANNOUNCEMENT_TTL), 4);
        sharing.halve_others(&queue());
        assert_eq!(sharing.own_share(&queue(), 1, 4, now), 2);
        sharing.halve_others(&queue());
        assert_eq!(sharing.own_share(&queue(), 1, 4, now), 4);
    }

    #[test]
    fn own_share_is_none_while_announcements_are_not_heard() {
        let now = Instant::now();
        let mut sharing = sharing(0, now);
        assert_eq!(sharing.own_share(&queue(), 1, 4, now), 4);
        sharing.interrupt();
        assert_eq!(sharing.own_share(&queue(), 1, 4, now), 0);
    }

    #[test]
    fn yield_ends_with_its_time_or_with_the_last_task() {
        let (now, mut sharing) = (Instant::now(), Sharing::default());
        for shard in 0..2 {
            sharing.begin_yield(&queue(), shard, now + YIELD_TIME);
        }
        assert!(sharing.is_yielded(&queue(), 0, now) && !sharing.is_yielded(&queue(), 0, now + YIELD_TIME));
        assert!(sharing.take_ended_yields(0, now).is_empty());
        assert_eq!(sharing.take_ended_yields(0, now + YIELD_TIME), [queue()]);
        sharing.end_yield(&queue(), 1);
        assert!(!sharing.has_yielded());
    }
}
