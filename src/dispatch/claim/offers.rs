//! Offers: resting waiters that a submit call includes, so that its tasks may go straight to them.
//!
//! A waiter rests once all shards are checked for it and no queue of its own is known to have ready tasks, except tasks
//! left to other servers. Waiters are offered in order of arrival, and at most one for each task of this server's share. A
//! waiter that gets no task keeps its position, and finds the tasks of the wake-ups that have arrived meanwhile.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Instant;

use super::ready_cache::Epoch;
use super::sharing::YIELD_TIME;
use super::wait_queue::WaitQueue;
use super::waiter::{ClaimRequest, Waiter};
use super::waiters::Waiters;
use crate::domain::queue::QueueName;
use crate::domain::task::{NewTask, StartTime};
use crate::store::ops::claim::{Front, WaiterRequest};
use crate::store::ops::submit::Offers;

/// Waiters in a submit call.
#[derive(Default, Debug)]
pub(super) struct OfferedWaiters {
    pub(super) ids: Vec<u64>,
    pub(super) offers: Offers,
    /// Queues with tasks that are left to other servers.
    pub(super) yielded: Vec<QueueName>,
    /// The epoch before the call is sent.
    sent_at: Epoch,
}

impl WaitQueue {
    /// Whether all shards are checked for a waiter in no call, and none is known to have tasks for it.
    fn is_resting(&self, id: u64) -> bool {
        self.waiters.get(&id).is_some_and(|waiter| {
            let has_tasks = |queue: &QueueName| {
                let shards = self.ready_cache.ready_shards(queue);
                shards.is_some_and(|shards| shards.keys().any(|shard| !self.is_yielded(queue, *shard)))
            };
            let is_checked = waiter.unchecked_shards.is_empty() && !waiter.request.queues.iter().any(has_tasks);
            waiter.is_long_poll && is_checked && !waiter.reply.is_closed()
        })
    }

    /// The first waiter for the queue that a claim call or a survey includes.
    fn first_in_claim_call(&self, queue: &QueueName) -> Option<u64> {
        let claims = self.in_flight.difference(&self.offered);
        let wants = |id: &&u64| self.waiters.get(id).is_some_and(|waiter| waiter.request.queues.contains(queue));
        claims.copied().find(|id| wants(&id))
    }

    /// The resting waiters to offer to new tasks of the shard, in order of arrival. `new_tasks` has their number by queue.
    /// A waiter behind one that is being checked for waits for its turn.
    fn offerable(&self, shard: usize, new_tasks: &BTreeMap<&QueueName, usize>) -> Vec<u64> {
        if self.is_stopping || self.unavailable_shards.contains_key(&shard) {
            return Vec::new();
        }
        let mut resting = BTreeSet::new();
        for (queue, count) in new_tasks {
            let Some(idle) = self.idle_by_queue.get(*queue) else { continue };
            let end = self.first_in_claim_call(queue).unwrap_or(u64::MAX);
            resting.extend(idle.range(..end).take_while(|id| self.is_resting(**id)).take(*count));
        }
        let mut tasks_left = new_tasks.clone();
        let mut takes_any = |id: &u64| {
            let Some(Waiter { request, .. }) = self.waiters.get(id) else { return false };
            let mut room = request.max;
            for queue in &request.queues {
                if let Some(left) = tasks_left.get_mut(queue) {
                    let taken = room.min(*left);
                    (room, *left) = (room - taken, *left - taken);
                }
            }
            room < request.max
        };
        resting.into_iter().filter(|id| takes_any(id)).collect()
    }
}

impl Waiters {
    /// Takes waiters out of the queue, to be offered to these tasks of the shard.
    pub(super) fn take_offers(&self, shard: usize, tasks: &[NewTask]) -> OfferedWaiters {
        let mut wait_queue = self.lock();
        let mut new_tasks = BTreeMap::new();
        for task in tasks.iter().filter(|task| task.start == StartTime::After(0)) {
            *new_tasks.entry(&task.queue).or_insert(0) += 1;
        }
        let mut offered = OfferedWaiters { sent_at: wait_queue.ready_cache.epoch(), ..OfferedWaiters::default() };
        new_tasks.retain(|queue, count| {
            let own = wait_queue.idle_by_queue.get(*queue).map_or(0, BTreeSet::len);
            if own == 0 {
                return false;
            }
            let now = Instant::now();
            let share = wait_queue.sharing.own_share(queue, own, *count, now);
            if wait_queue.sharing.is_heard() && share < *count {
                wait_queue.sharing.begin_yield(queue, shard, now + YIELD_TIME);
                offered.yielded.push((*queue).clone());
            }
            *count = share;
            share > 0
        });
        offered.offers.max_tasks = new_tasks.values().sum();
        for id in wait_queue.offerable(shard, &new_tasks) {
            wait_queue.begin_call(id);
            wait_queue.offered.insert(id);
            let Some(waiter) = wait_queue.waiters.get(&id) else { continue };
            let ClaimRequest { ref queues, max, lease_ms, ref worker, claim_id } = *waiter.request;
            let names = &mut offered.offers.queues;
            let mut index = |queue: &QueueName| {
                names.iter().position(|name| name == queue).unwrap_or_else(|| {
                    names.push(queue.clone());
                    names.len() - 1
                })
            };
            let queues = queues.iter().filter(|queue| new_tasks.contains_key(queue)).map(&mut index).collect();
            offered.offers.requests.push(WaiterRequest { max, lease_ms, worker: worker.clone(), claim_id, queues });
            offered.ids.push(id);
        }
        offered
    }

    /// Records that a submit found the queue empty in the shard, and left no ready task there.
    pub(super) fn record_empty(&self, offered: &OfferedWaiters, queue: &QueueName, shard: usize) {
        let mut wait_queue = self.lock();
        wait_queue.apply_check(queue, shard, offered.sent_at, Front::Empty);
        wait_queue.sharing.end_yield(queue, shard);
    }

    /// Has the yielded queues checked: it is not known whether a submit has left tasks to other servers.
    pub(super) fn check_yielded(&self, offered: &OfferedWaiters, shard: usize) {
        let mut wait_queue = self.lock();
        for queue in &offered.yielded {
            wait_queue.record_wakeup(queue, shard, 0);
        }
    }

    /// Returns the offered waiters that got no task to their positions.
    pub(super) fn return_offers(&self, offered: &OfferedWaiters) {
        let mut wait_queue = self.lock();
        for id in &offered.ids {
            wait_queue.offered.remove(id);
        }
        self.return_waiters(wait_queue, BTreeSet::new(), &offered.ids, |_| ());
    }
}

#[cfg(test)]
mod tests {
    use super::super::shard_set::ShardSet;
    use super::super::wait_queue::tests::{add_waiter, queue};
    use super::*;

    /// Makes a waiter of two shards rest.
    fn rest(wait_queue: &mut WaitQueue, id: u64) {
        wait_queue.begin_call(id);
        wait_queue.waiters.get_mut(&id).unwrap().unchecked_shards = ShardSet::default();
        wait_queue.in_flight.remove(&id);
        wait_queue.index(id);
    }

    fn offerable(wait_queue: &WaitQueue, name: &str, count: usize) -> Vec<u64> {
        wait_queue.offerable(0, &BTreeMap::from([(&queue(name), count)]))
    }

    #[test]
    fn resting_waiters_are_offered_in_order_and_at_most_one_for_each_task() {
        let mut wait_queue = WaitQueue::new(2);
        let waiters: Vec<_> = (0..3).map(|_| add_waiter(&mut wait_queue, &["q"])).collect();
        waiters.iter().for_each(|(id, _)| rest(&mut wait_queue, *id));
        assert_eq!(offerable(&wait_queue, "q", 2), [waiters[0].0, waiters[1].0]);
        assert_eq!(offerable(&wait_queue, "q", 9).len(), 3);
        assert!(offerable(&wait_queue, "r", 1).is_empty());
    }

    #[test]
    fn waiter_of_many_tasks_is_offered_alone_for_them() {
        let mut wait_queue = WaitQueue::new(2);
        let waiters: Vec<_> = (0..2).map(|_| add_waiter(&mut wait_queue, &["q", "r"])).collect();
        for (id, _) in &waiters {
            rest(&mut wait_queue, *id);
        }
        let request = wait_queue.waiters[&waiters[0].0].request.as_ref().clone();
        wait_queue.waiters.get_mut(&waiters[0].0).unwrap().request = ClaimRequest { max: 3, ..request }.into();
        let (q, r) = (queue("q"), queue("r"));
        assert_eq!(wait_queue.offerable(0, &BTreeMap::from([(&q, 2), (&r, 1)])), [waiters[0].0]);
        assert_eq!(wait_queue.offerable(0, &BTreeMap::from([(&q, 2), (&r, 2)])).len(), 2);
    }

    #[test]
    fn waiter_behind_an_older_one_in_a_claim_call_is_not_offered() {
        let mut wait_queue = WaitQueue::new(2);
        let [(old, _old), (young, _young)] = std::array::from_fn(|_| add_waiter(&mut wait_queue, &["q"]));
        rest(&mut wait_queue, young);
        assert!(offerable(&wait_queue, "q", 1).is_empty(), "no shard is checked for the older one");
        rest(&mut wait_queue, old);
        wait_queue.begin_call(old);
        assert!(offerable(&wait_queue, "q", 1).is_empty(), "a claim call includes it");
        wait_queue.offered.insert(old);
        assert_eq!(offerable(&wait_queue, "q", 1), [young], "another submit offers it");
    }

    #[test]
    fn waiter_is_not_offered_while_its_queue_is_ready_or_the_shard_is_down() {
        let mut wait_queue = WaitQueue::new(2);
        let (id, _reply) = add_waiter(&mut wait_queue, &["q", "r"]);
        rest(&mut wait_queue, id);
        wait_queue.record_wakeup(&queue("q"), 1, 4);
        assert!(offerable(&wait_queue, "r", 1).is_empty());
        let sent_at = wait_queue.ready_cache.epoch();
        wait_queue.apply_check(&queue("q"), 1, sent_at, Front::Empty);
        assert_eq!(offerable(&wait_queue, "r", 1), [id]);
        wait_queue.unavailable_shards.insert(0, crate::store::Error::Unavailable("no answer".into()));
        assert!(offerable(&wait_queue, "r", 1).is_empty());
    }
}
