//! The line of those who wait: who they are, which of them a pump has taken out, and where there is something for whom.
//! No lock, no channel is waited for here: each function is one step.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::sync::Arc;

use tokio::sync::oneshot;

use super::delivery::Delivery;
use super::waiters::Request;
use crate::domain::digest::Digest;
use crate::domain::queue::QueueName;
use crate::store::{Error, Result};

/// Waiters in one call.
const BATCH: usize = 100;
/// Those of a queue that has something who are looked for first: as a rule it has something for one of them.
const FIRST: usize = 4;

/// Where a waiter's answer goes.
pub(super) type Answer = oneshot::Sender<Result<Delivery>>;

pub(super) struct Waiter {
    pub(super) request: Arc<Request>,
    pub(super) answer: Answer,
    /// Shards that have not been looked in yet.
    pub(super) unseen: BTreeSet<usize>,
    /// Shards that could not be looked in.
    pub(super) failed: BTreeMap<usize, Error>,
    /// Whether it rests when there is nothing for it.
    pub(super) stays: bool,
}

impl Waiter {
    /// Ends its wait: it gets nothing, and is told why if that is because somewhere could not be looked.
    pub(super) fn dismiss(mut self) {
        let answer = self.failed.pop_first().map_or(Ok(Delivery::default()), |(_, error)| Err(error));
        // Whoever waited may have gone.
        let _ = self.answer.send(answer);
    }
}

#[derive(Default)]
pub(super) struct Line {
    shards: usize,
    arrivals: u64,
    /// All, also those that are taken out.
    pub(super) all: HashMap<u64, Waiter>,
    /// Those that a pump has taken out.
    pub(super) taken: HashSet<u64>,
    /// By queue, those that are not taken out.
    free: HashMap<QueueName, BTreeSet<u64>>,
    /// Those that are not taken out and have shards to be looked for in.
    fresh: BTreeSet<u64>,
    /// How many wait for a queue at all.
    pub(super) interest: HashMap<QueueName, usize>,
    /// By claim id: the last one that came with it.
    claims: HashMap<Digest, u64>,
    /// Where there is something to claim, and of which priority.
    ready: HashMap<QueueName, BTreeMap<usize, u8>>,
    /// Per shard: queues that were hinted at while its call was under way.
    hinted: HashMap<usize, HashSet<QueueName>>,
    /// Per shard: how many of a queue that has something the next call looks for.
    windows: Vec<usize>,
    /// Shards that are away.
    pub(super) down: BTreeMap<usize, Error>,
    pub(super) dismissed: bool,
}

impl std::fmt::Debug for Line {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} waiters", self.all.len())
    }
}

impl Line {
    pub(super) fn new(shards: usize) -> Self {
        Line { shards, windows: vec![FIRST; shards], ..Line::default() }
    }

    /// A new waiter at the end. One that came earlier with the same claim id is answered: its client asks anew.
    pub(super) fn enter(&mut self, request: Request, answer: Answer, stays: bool) -> u64 {
        self.arrivals += 1;
        let id = self.arrivals;
        for queue in &request.queues {
            *self.interest.entry(queue.clone()).or_default() += 1;
        }
        if let Some(older) = request.claim.and_then(|claim| self.claims.insert(claim, id)) {
            self.part(older);
        }
        let failed = self.down.clone();
        let unseen = (0..self.shards).filter(|shard| !failed.contains_key(shard)).collect();
        self.all.insert(id, Waiter { request: Arc::new(request), answer, unseen, failed, stays });
        self.free(id);
        id
    }

    /// Ends the wait of `id`, or has it end when the pump that looks for it comes back.
    pub(super) fn part(&mut self, id: u64) {
        if !self.taken.contains(&id) {
            self.forget(id).into_iter().for_each(Waiter::dismiss);
        } else if let Some(waiter) = self.all.get_mut(&id) {
            waiter.stays = false;
            waiter.unseen.clear();
        }
    }

    /// Puts it where it is found.
    pub(super) fn free(&mut self, id: u64) {
        let Some(waiter) = self.all.get(&id) else { return };
        if !waiter.unseen.is_empty() {
            self.fresh.insert(id);
        }
        for queue in &waiter.request.queues {
            self.free.entry(queue.clone()).or_default().insert(id);
        }
    }

    /// Takes it from where it is found.
    pub(super) fn unfree(&mut self, id: u64) {
        self.fresh.remove(&id);
        let Some(waiter) = self.all.get(&id) else { return };
        for queue in &waiter.request.queues {
            if let Some(free) = self.free.get_mut(queue) {
                free.remove(&id);
                if free.is_empty() {
                    self.free.remove(queue);
                }
            }
        }
    }

    /// Takes it out of the line for good.
    pub(super) fn forget(&mut self, id: u64) -> Option<Waiter> {
        self.unfree(id);
        self.taken.remove(&id);
        let waiter = self.all.remove(&id)?;
        if let Some(claim) = waiter.request.claim
            && self.claims.get(&claim) == Some(&id)
        {
            self.claims.remove(&claim);
        }
        for queue in &waiter.request.queues {
            if let Some(count) = self.interest.get_mut(queue) {
                *count -= 1;
                if *count == 0 {
                    self.interest.remove(queue);
                    self.ready.remove(queue);
                }
            }
        }
        Some(waiter)
    }

    /// Whether nothing can come of waiting on: it has been looked for everywhere and does not rest, it cannot be
    /// looked for anywhere, or its client has gone.
    pub(super) fn is_done(&self, id: u64) -> bool {
        self.all.get(&id).is_some_and(|waiter| {
            let looked_everywhere = waiter.unseen.is_empty() && !waiter.stays;
            looked_everywhere || waiter.failed.len() == self.shards || waiter.answer.is_closed()
        })
    }

    /// There is something in the shard.
    pub(super) fn set_ready(&mut self, queue: &QueueName, shard: usize, priority: u8) {
        if self.interest.contains_key(queue) && !self.down.contains_key(&shard) {
            self.ready.entry(queue.clone()).or_default().insert(shard, priority);
        }
    }

    /// There is nothing, unless a hint said otherwise while that was found out.
    pub(super) fn unset_ready(&mut self, queue: &QueueName, shard: usize) {
        if self.hinted.get(&shard).is_some_and(|hinted| hinted.contains(queue)) {
            return;
        }
        if let Some(shards) = self.ready.get_mut(queue) {
            shards.remove(&shard);
            if shards.is_empty() {
                self.ready.remove(queue);
            }
        }
    }

    /// A hint came.
    pub(super) fn hint(&mut self, queue: &QueueName, shard: usize, priority: u8) {
        self.set_ready(queue, shard, priority);
        self.hinted.entry(shard).or_default().insert(queue.clone());
    }

    /// A call of the shard begins: hints from before it are seen by it.
    pub(super) fn begin_call(&mut self, shard: usize) {
        self.hinted.remove(&shard);
    }

    /// The shard is away: nobody waits for it, and whoever has nowhere else to be looked for is to leave.
    pub(super) fn set_down(&mut self, shard: usize, error: &Error) -> Vec<u64> {
        self.down.insert(shard, error.clone());
        for shards in self.ready.values_mut() {
            shards.remove(&shard);
        }
        self.ready.retain(|_, shards| !shards.is_empty());
        for waiter in self.all.values_mut() {
            waiter.unseen.remove(&shard);
            waiter.failed.insert(shard, error.clone());
        }
        let resting = self.all.keys().filter(|id| !self.taken.contains(id));
        resting.copied().filter(|id| self.is_done(*id)).collect()
    }

    /// The shard is back: all are looked for in it again.
    pub(super) fn set_up(&mut self, shard: usize) {
        if self.down.remove(&shard).is_none() {
            return;
        }
        for (id, waiter) in &mut self.all {
            waiter.failed.remove(&shard);
            waiter.unseen.insert(shard);
            if !self.taken.contains(id) {
                self.fresh.insert(*id);
            }
        }
    }

    /// Whether this shard is where the queue shows its best priority.
    fn is_best(&self, queue: &QueueName, shard: usize) -> bool {
        self.ready
            .get(queue)
            .is_some_and(|shards| shards.get(&shard).is_some_and(|own| shards.values().all(|other| other <= own)))
    }

    /// Whether there is something of the queue in the shard, as far as is known.
    pub(super) fn is_ready(&self, queue: &QueueName, shard: usize) -> bool {
        self.ready.get(queue).is_some_and(|shards| shards.contains_key(&shard))
    }

    /// A call has served so many. The next looks for twice as many: a crowd costs a call for nothing little, and a
    /// flood of tasks finds all who wait within a few calls.
    pub(super) fn set_window(&mut self, shard: usize, served: usize) {
        if let Some(window) = self.windows.get_mut(shard) {
            *window = (2 * served).clamp(FIRST, BATCH);
        }
    }

    /// Where the queue that the waiter prefers of those that have something has it.
    fn known(&self, waiter: &Waiter) -> Option<&BTreeMap<usize, u8>> {
        waiter.request.queues.iter().find_map(|queue| self.ready.get(queue))
    }

    /// Where to look for this waiter next: where the queue it prefers shows the best priority, else wherever it has
    /// not been looked for; `None`: nowhere for now.
    pub(super) fn target(&self, id: u64) -> Option<usize> {
        let waiter = self.all.get(&id)?;
        if let Some(shards) = self.known(waiter) {
            return shards.iter().max_by_key(|(_, priority)| **priority).map(|(shard, _)| *shard);
        }
        // Waiters begin at different shards, so that a crowd of them does not move in step.
        let from = (id % self.shards.max(1) as u64) as usize;
        let place = |shard: &usize| (shard + self.shards - from) % self.shards;
        waiter.unseen.iter().copied().min_by_key(place)
    }

    /// The first of those whose target is this shard, in order of arrival. A shard of equal priority counts as one.
    pub(super) fn eligible(&self, shard: usize) -> Vec<u64> {
        let mut ids = BTreeSet::new();
        let window = self.windows.get(shard).copied().unwrap_or(BATCH);
        for queue in self.ready.keys().filter(|queue| self.is_best(queue, shard)) {
            let Some(free) = self.free.get(queue) else { continue };
            let prefers_it = |id: &&u64| {
                let queues = self.all.get(id).map(|waiter| &waiter.request.queues);
                queues.and_then(|queues| queues.iter().find(|name| self.ready.contains_key(*name))) == Some(queue)
            };
            ids.extend(free.iter().filter(prefers_it).take(window));
        }
        // New ones for whose queues something is known stand in line with those above.
        let is_unknown = |id: &&u64| self.all.get(id).is_some_and(|waiter| self.known(waiter).is_none());
        let fresh = self.fresh.iter().filter(is_unknown);
        ids.extend(fresh.filter(|id| self.target(**id) == Some(shard)).take(BATCH));
        ids.into_iter().take(BATCH).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn queue(name: &str) -> QueueName {
        QueueName::parse(name).unwrap()
    }

    fn enter(line: &mut Line, queues: &[&str]) -> (u64, oneshot::Receiver<Result<Delivery>>) {
        let (answer, answered) = oneshot::channel();
        let queues = queues.iter().map(|name| queue(name)).collect();
        let request = Request { queues, max: 1, lease_ms: 1000, worker: "w".into(), claim: None };
        (line.enter(request, answer, true), answered)
    }

    #[test]
    fn a_new_waiter_is_looked_for_in_every_shard_and_then_rests() {
        let mut line = Line::new(4);
        let (id, _answer) = enter(&mut line, &["q"]);
        let mut seen = BTreeSet::new();
        while let Some(shard) = line.target(id) {
            assert_eq!(line.eligible(shard), [id]);
            line.unfree(id);
            line.all.get_mut(&id).unwrap().unseen.remove(&shard);
            line.free(id);
            seen.insert(shard);
        }
        assert_eq!(seen, BTreeSet::from([0, 1, 2, 3]));
        assert!(!line.is_done(id));
    }

    #[test]
    fn a_waiter_is_sent_where_its_preferred_queue_shows_the_best_priority() {
        let mut line = Line::new(4);
        let (id, _answer) = enter(&mut line, &["first", "second"]);
        line.set_ready(&queue("second"), 0, 9);
        assert_eq!(line.target(id), Some(0));
        line.set_ready(&queue("first"), 1, 2);
        line.set_ready(&queue("first"), 2, 7);
        assert_eq!(line.target(id), Some(2));
        assert!(line.eligible(0).is_empty() && line.eligible(1).is_empty());
    }

    #[test]
    fn a_hint_is_followed_for_a_few_first_and_for_more_when_they_are_all_served() {
        let mut line = Line::new(1);
        let (ids, _answers): (Vec<u64>, Vec<_>) = (0..300).map(|_| enter(&mut line, &["q"])).unzip();
        assert_eq!(line.eligible(0), ids[..100], "new ones are all looked for");
        line.set_ready(&queue("q"), 0, 4);
        assert_eq!(line.eligible(0), ids[..4], "nobody is overtaken by a new one");
        line.set_window(0, 4);
        assert_eq!(line.eligible(0), ids[..8]);
        line.set_window(0, 90);
        assert_eq!(line.eligible(0), ids[..100]);
        line.set_window(0, 0);
        assert_eq!(line.eligible(0), ids[..4]);
    }

    #[test]
    fn a_hint_during_a_call_outlives_what_the_call_did_not_find() {
        let mut line = Line::new(1);
        let (_, _answer) = enter(&mut line, &["q"]);
        line.begin_call(0);
        line.hint(&queue("q"), 0, 4);
        line.unset_ready(&queue("q"), 0);
        assert!(line.is_ready(&queue("q"), 0));
        line.begin_call(0);
        line.unset_ready(&queue("q"), 0);
        assert!(!line.is_ready(&queue("q"), 0));
    }

    #[test]
    fn a_shard_that_is_away_is_not_waited_for() {
        let mut line = Line::new(2);
        let (id, _answer) = enter(&mut line, &["q"]);
        let away = Error::Unavailable("away".into());
        assert!(line.set_down(0, &away).is_empty());
        assert_eq!(line.target(id), Some(1));
        assert_eq!(line.set_down(1, &away), [id], "nowhere is left to look");
        line.set_up(0);
        assert_eq!(line.target(id), Some(0));
        assert!(!line.is_done(id));
    }

    #[test]
    fn a_queue_that_nobody_waits_for_is_not_remembered() {
        let mut line = Line::new(1);
        let (id, _answer) = enter(&mut line, &["q"]);
        line.set_ready(&queue("other"), 0, 4);
        line.set_ready(&queue("q"), 0, 4);
        drop(line.forget(id));
        assert!(!line.is_ready(&queue("q"), 0) && !line.is_ready(&queue("other"), 0));
    }
}
