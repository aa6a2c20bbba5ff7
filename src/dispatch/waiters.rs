//! Who waits for tasks of which queues, in order of arrival, and where there is something for them.
//!
//! A new waiter is looked for in every shard, one after another: a hint from before it came has passed. After that it
//! rests until a hint or a sweep says where to look. A pump takes a waiter out while it looks, so one shard at a time
//! looks for it and it never gets more than it wants; what it did not serve goes back to its own place.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::{Notify, oneshot};

use super::delivery::Delivery;
use crate::domain::digest::Digest;
use crate::domain::queue::QueueName;
use crate::store::ops::claim::Want;
use crate::store::{Error, Result};

/// Waiters in one call.
const BATCH: usize = 100;

/// What a client asks for.
#[derive(Clone, Debug)]
pub struct Request {
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

type Answer = oneshot::Sender<Result<Delivery>>;

struct Waiter {
    request: Arc<Request>,
    answer: Answer,
    /// Shards that have not been looked in yet.
    unseen: BTreeSet<usize>,
    /// Shards that could not be looked in.
    failed: BTreeMap<usize, Error>,
    /// Whether it rests when there is nothing for it.
    stays: bool,
}

/// Waiters that a pump has taken out, and the call to make for them.
#[derive(Debug)]
pub(super) struct Batch {
    pub(super) ids: Vec<u64>,
    pub(super) queues: Vec<QueueName>,
    pub(super) wants: Vec<Want>,
}

#[derive(Default)]
struct Inner {
    arrivals: u64,
    /// All, also those that are taken out.
    all: HashMap<u64, Waiter>,
    /// Those that a pump has taken out.
    taken: HashSet<u64>,
    /// By queue, those that are not taken out.
    free: HashMap<QueueName, BTreeSet<u64>>,
    /// Those that are not taken out and have shards to be looked for in.
    fresh: BTreeSet<u64>,
    /// How many wait for a queue at all.
    interest: HashMap<QueueName, usize>,
    /// Where there is something to claim, and of which priority.
    ready: HashMap<QueueName, BTreeMap<usize, u8>>,
    /// Per shard: queues that were hinted at while its call was under way.
    hinted: Vec<HashSet<QueueName>>,
    dismissed: bool,
}

/// All who wait.
#[derive(Debug)]
pub(super) struct Waiters {
    inner: Mutex<Inner>,
    news: Vec<Notify>,
}

impl std::fmt::Debug for Inner {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} waiters", self.all.len())
    }
}

impl Waiters {
    pub(super) fn new(shards: usize) -> Self {
        let inner = Inner { hinted: vec![HashSet::new(); shards], ..Inner::default() };
        Waiters { inner: Mutex::new(inner), news: (0..shards).map(|_| Notify::new()).collect() }
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn tell(&self, shard: Option<usize>) {
        if let Some(notify) = shard.and_then(|shard| self.news.get(shard)) {
            notify.notify_one();
        }
    }

    /// Returns when there may be something to pull for this shard.
    pub(super) async fn news(&self, shard: usize) {
        if let Some(notify) = self.news.get(shard) {
            notify.notified().await;
        }
    }

    /// A new waiter at the end of the line.
    pub(super) fn register(self: &Arc<Self>, request: Request, stays: bool) -> Registered {
        let (answer, answered) = oneshot::channel();
        let mut inner = self.lock();
        inner.arrivals += 1;
        let id = inner.arrivals;
        if inner.dismissed {
            let _ = answer.send(Ok(Delivery::default()));
            return Registered { waiters: self.clone(), id, answered };
        }
        for queue in &request.queues {
            *inner.interest.entry(queue.clone()).or_default() += 1;
        }
        let unseen = (0..self.news.len()).collect();
        inner.all.insert(id, Waiter { request: Arc::new(request), answer, unseen, failed: BTreeMap::new(), stays });
        inner.free(id);
        self.tell(inner.target(id));
        Registered { waiters: self.clone(), id, answered }
    }

    /// Takes out those for whom this shard is where to look, in order of arrival; `None` if there are none.
    pub(super) fn pull(&self, shard: usize) -> Option<Batch> {
        let mut inner = self.lock();
        let ids = inner.eligible(shard);
        if ids.is_empty() {
            return None;
        }
        if let Some(hinted) = inner.hinted.get_mut(shard) {
            hinted.clear();
        }
        let mut batch = Batch { ids: Vec::new(), queues: Vec::new(), wants: Vec::new() };
        let mut places = HashMap::new();
        for id in ids {
            inner.unfree(id);
            let Some(waiter) = inner.all.get(&id) else { continue };
            let unseen = waiter.unseen.contains(&shard);
            let worth = |queue: &&QueueName| {
                unseen || inner.ready.get(*queue).is_some_and(|shards| shards.contains_key(&shard))
            };
            let mut queues = Vec::new();
            for queue in waiter.request.queues.iter().filter(worth) {
                queues.push(*places.entry(queue.clone()).or_insert_with(|| {
                    batch.queues.push(queue.clone());
                    batch.queues.len() - 1
                }));
            }
            let Request { max, lease_ms, ref worker, claim, .. } = *waiter.request;
            batch.wants.push(Want { max, lease_ms, worker: worker.clone(), claim, queues });
            batch.ids.push(id);
            inner.taken.insert(id);
        }
        Some(batch)
    }

    /// Waiter `id`, which is taken out, gets its tasks. If it has gone, they go back as the delivery is dropped.
    pub(super) fn serve(&self, id: u64, delivery: Delivery) {
        let waiter = self.lock().forget(id);
        if let Some(waiter) = waiter {
            let _ = waiter.answer.send(Ok(delivery));
        }
    }

    /// A call has come back: those whom it did not serve go back to their places. `cut`: a limit ended it, so it has
    /// not looked for all of them.
    pub(super) fn put_back(&self, shard: usize, batch: &Batch, fronts: &[(usize, Option<u8>)], cut: bool) {
        let mut inner = self.lock();
        for (place, front) in fronts {
            let Some(queue) = batch.queues.get(*place) else { continue };
            match front {
                Some(priority) => inner.set_ready(queue, shard, *priority),
                // What was hinted at during the call may have come after it looked.
                None if inner.hinted.get(shard).is_some_and(|hinted| hinted.contains(queue)) => {}
                None => inner.unset_ready(queue, shard),
            }
        }
        let outcome = |waiter: &mut Waiter| {
            waiter.failed.remove(&shard);
            if !cut {
                waiter.unseen.remove(&shard);
            }
        };
        self.return_to_places(inner, shard, batch, outcome);
    }

    /// A call has failed: those it was for are looked for elsewhere, and told when there is nowhere else.
    pub(super) fn fail(&self, shard: usize, batch: &Batch, error: &Error) {
        let mut inner = self.lock();
        for queue in &batch.queues {
            inner.unset_ready(queue, shard);
        }
        let outcome = |waiter: &mut Waiter| {
            waiter.failed.insert(shard, error.clone());
            waiter.unseen.remove(&shard);
        };
        self.return_to_places(inner, shard, batch, outcome);
    }

    fn return_to_places(
        &self,
        mut inner: MutexGuard<'_, Inner>,
        shard: usize,
        batch: &Batch,
        outcome: impl Fn(&mut Waiter),
    ) {
        // There may be more for others of this shard.
        let mut tell = BTreeSet::from([shard]);
        let mut leaving = Vec::new();
        for id in &batch.ids {
            if !inner.taken.remove(id) {
                continue;
            }
            let Some(waiter) = inner.all.get_mut(id) else { continue };
            outcome(waiter);
            let hopeless = waiter.failed.len() == self.news.len();
            let done = waiter.unseen.is_empty() && !waiter.stays;
            if hopeless || done || waiter.answer.is_closed() {
                leaving.extend(inner.forget(*id));
            } else {
                inner.free(*id);
                tell.extend(inner.target(*id));
            }
        }
        drop(inner);
        for shard in tell {
            self.tell(Some(shard));
        }
        for mut waiter in leaving {
            let answer = waiter.failed.pop_first().map_or(Ok(Delivery::default()), |(_, error)| Err(error));
            let _ = waiter.answer.send(answer);
        }
    }

    /// A script said that the queue has something of this priority.
    pub(super) fn hint(&self, shard: usize, queue: &QueueName, priority: u8) {
        let mut inner = self.lock();
        if !inner.interest.contains_key(queue) {
            return;
        }
        inner.set_ready(queue, shard, priority);
        if let Some(hinted) = inner.hinted.get_mut(shard) {
            hinted.insert(queue.clone());
        }
        self.tell(Some(shard));
    }

    /// A sweep found that of `queues` exactly those in `found` have something in this shard.
    pub(super) fn swept(&self, shard: usize, queues: &[QueueName], found: Vec<(QueueName, u8)>) {
        let mut inner = self.lock();
        let found: HashMap<QueueName, u8> = found.into_iter().collect();
        for queue in queues.iter().filter(|queue| !found.contains_key(*queue)) {
            if !inner.hinted.get(shard).is_some_and(|hinted| hinted.contains(queue)) {
                inner.unset_ready(queue, shard);
            }
        }
        for (queue, priority) in found {
            if inner.interest.contains_key(&queue) {
                inner.set_ready(&queue, shard, priority);
            }
        }
        self.tell(Some(shard));
    }

    /// The queues that somebody waits for.
    pub(super) fn queues(&self) -> Vec<QueueName> {
        self.lock().interest.keys().cloned().collect()
    }

    pub(super) fn count(&self) -> usize {
        self.lock().all.len()
    }

    /// All that rest get an empty answer, and so does whoever comes later.
    pub(super) fn dismiss(&self) {
        let mut inner = self.lock();
        inner.dismissed = true;
        let resting: Vec<u64> = inner.all.keys().filter(|id| !inner.taken.contains(id)).copied().collect();
        let resting: Vec<Waiter> = resting.into_iter().filter_map(|id| inner.forget(id)).collect();
        for waiter in inner.all.values_mut() {
            waiter.stays = false;
            waiter.unseen.clear();
        }
        drop(inner);
        for waiter in resting {
            let _ = waiter.answer.send(Ok(Delivery::default()));
        }
    }

    pub(super) fn are_dismissed(&self) -> bool {
        self.lock().dismissed
    }
}

impl Inner {
    fn free(&mut self, id: u64) {
        let Some(waiter) = self.all.get(&id) else { return };
        if !waiter.unseen.is_empty() {
            self.fresh.insert(id);
        }
        for queue in &waiter.request.queues {
            self.free.entry(queue.clone()).or_default().insert(id);
        }
    }

    fn unfree(&mut self, id: u64) {
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

    fn forget(&mut self, id: u64) -> Option<Waiter> {
        self.unfree(id);
        self.taken.remove(&id);
        let waiter = self.all.remove(&id)?;
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

    fn set_ready(&mut self, queue: &QueueName, shard: usize, priority: u8) {
        if self.interest.contains_key(queue) {
            self.ready.entry(queue.clone()).or_default().insert(shard, priority);
        }
    }

    fn unset_ready(&mut self, queue: &QueueName, shard: usize) {
        if let Some(shards) = self.ready.get_mut(queue) {
            shards.remove(&shard);
            if shards.is_empty() {
                self.ready.remove(queue);
            }
        }
    }

    /// Where to look for this waiter next: where the queue it prefers shows the best priority, else wherever it has
    /// not been looked for; `None`: nowhere for now.
    fn target(&self, id: u64) -> Option<usize> {
        let waiter = self.all.get(&id)?;
        let known = waiter.request.queues.iter().find_map(|queue| self.ready.get(queue));
        if let Some(shards) = known {
            return shards.iter().max_by_key(|(_, priority)| **priority).map(|(shard, _)| *shard);
        }
        // Waiters begin at different shards, so that a crowd of them does not move in step.
        let shards = self.hinted.len();
        let from = (id % shards as u64) as usize;
        let place = |shard: &usize| (shard + shards - from) % shards;
        waiter.unseen.iter().copied().min_by_key(place)
    }

    /// The first of those whose target is this shard. A shard of equal priority counts as one.
    fn eligible(&self, shard: usize) -> Vec<u64> {
        let mut ids = BTreeSet::new();
        for (queue, shards) in &self.ready {
            let Some(own) = shards.get(&shard) else { continue };
            if shards.values().any(|other| other > own) {
                continue;
            }
            let Some(free) = self.free.get(queue) else { continue };
            let is_for_this = |id: &&u64| {
                let preferred = self.all.get(id).map(|waiter| &waiter.request.queues);
                preferred.and_then(|queues| queues.iter().find(|name| self.ready.contains_key(*name))) == Some(queue)
            };
            ids.extend(free.iter().filter(is_for_this).take(BATCH));
        }
        ids.extend(self.fresh.iter().filter(|id| self.target(**id) == Some(shard)).take(BATCH));
        ids.into_iter().take(BATCH).collect()
    }
}

/// A place in the line. Dropped, it is given up.
#[derive(Debug)]
pub(super) struct Registered {
    waiters: Arc<Waiters>,
    id: u64,
    answered: oneshot::Receiver<Result<Delivery>>,
}

impl Registered {
    /// The answer, when it comes.
    pub(super) async fn answer(&mut self) -> Result<Delivery> {
        match (&mut self.answered).await {
            Ok(answer) => answer,
            Err(_) => Err(Error::Unavailable("the server is stopping".into())),
        }
    }

    /// Gives the place up, unless somebody is looking for it right now: then its answer still counts.
    pub(super) async fn leave(mut self) -> Result<Delivery> {
        {
            let mut inner = self.waiters.lock();
            if inner.taken.contains(&self.id) {
                if let Some(waiter) = inner.all.get_mut(&self.id) {
                    waiter.stays = false;
                    waiter.unseen.clear();
                }
            } else if inner.forget(self.id).is_some() {
                return Ok(Delivery::default());
            }
        }
        self.answer().await
    }
}

impl Drop for Registered {
    fn drop(&mut self) {
        let mut inner = self.waiters.lock();
        // One that is being looked for stays registered: what it gets meets a closed channel and goes back.
        if !inner.taken.contains(&self.id) {
            drop(inner.forget(self.id));
        }
    }
}
