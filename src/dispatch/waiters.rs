//! Who waits for tasks of which queues, in order of arrival, and where there is something for them.
//!
//! A new waiter is looked for in every shard, one after another: a hint from before it came has passed. After that it
//! rests until a hint or a sweep says where to look. A pump takes a waiter out while it looks, so one shard at a time
//! looks for it and it never gets more than it wants; what it did not serve goes back to its own place.

use std::collections::{BTreeSet, HashMap};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use tokio::sync::{Notify, oneshot};

use super::delivery::Delivery;
use super::line::{Line, Waiter};
use crate::domain::digest::Digest;
use crate::domain::queue::QueueName;
use crate::store::ops::claim::Want;
use crate::store::{Error, Result};

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

/// Waiters that a pump has taken out, and the call to make for them.
#[derive(Debug)]
pub(super) struct Batch {
    pub(super) ids: Vec<u64>,
    pub(super) queues: Vec<QueueName>,
    pub(super) wants: Vec<Want>,
    /// When the shard's pump first had a reason to make this call.
    pub(super) since: Instant,
}

/// What a shard's pump is told.
#[derive(Default, Debug)]
struct News {
    notify: Notify,
    /// When it was first told something since it last pulled, in µs since the line began; 0: it was not.
    since: AtomicU64,
}

/// All who wait.
#[derive(Debug)]
pub(super) struct Waiters {
    line: Mutex<Line>,
    began: Instant,
    news: Vec<News>,
}

impl Waiters {
    pub(super) fn new(shards: usize) -> Self {
        let news = (0..shards).map(|_| News::default()).collect();
        Waiters { line: Mutex::new(Line::new(shards)), began: Instant::now(), news }
    }

    fn lock(&self) -> MutexGuard<'_, Line> {
        self.line.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn tell(&self, shards: impl IntoIterator<Item = usize>) {
        let now = self.now();
        for news in shards.into_iter().filter_map(|shard| self.news.get(shard)) {
            // Only the first counts.
            let _ = news.since.compare_exchange(0, now, Ordering::Relaxed, Ordering::Relaxed);
            news.notify.notify_one();
        }
    }

    /// In µs since the line began, never 0.
    fn now(&self) -> u64 {
        u64::try_from(self.began.elapsed().as_micros()).unwrap_or(u64::MAX).max(1)
    }

    /// Returns when there may be something to pull for this shard.
    pub(super) async fn news(&self, shard: usize) {
        if let Some(news) = self.news.get(shard) {
            news.notify.notified().await;
        }
    }

    /// A new waiter at the end of the line.
    pub(super) fn register(self: &Arc<Self>, request: Request, stays: bool) -> Registered {
        let (answer, answered) = oneshot::channel();
        let mut line = self.lock();
        let id = line.enter(request, answer, stays);
        if line.dismissed || line.is_done(id) {
            line.part(id);
        }
        self.tell(line.target(id));
        drop(line);
        Registered { waiters: self.clone(), id, answered }
    }

    /// Takes out those for whom this shard is where to look, in order of arrival; `None` if there are none.
    pub(super) fn pull(&self, shard: usize) -> Option<Batch> {
        let mut line = self.lock();
        let told = self.news.get(shard).map_or(0, |news| news.since.swap(0, Ordering::Relaxed));
        let ids = line.eligible(shard);
        if ids.is_empty() {
            return None;
        }
        line.begin_call(shard);
        let since = self.began + Duration::from_micros(if told == 0 { self.now() } else { told });
        let mut batch = Batch { ids: Vec::new(), queues: Vec::new(), wants: Vec::new(), since };
        let mut places = HashMap::new();
        for id in ids {
            line.unfree(id);
            let Some(waiter) = line.all.get(&id) else { continue };
            let unseen = waiter.unseen.contains(&shard);
            let worth = |queue: &&QueueName| unseen || line.is_ready(queue, shard);
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
            line.taken.insert(id);
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
        let mut line = self.lock();
        let served = batch.ids.iter().filter(|id| !line.taken.contains(id)).count();
        line.set_window(shard, served);
        for (place, front) in fronts {
            let Some(queue) = batch.queues.get(*place) else { continue };
            match front {
                Some(priority) => line.set_ready(queue, shard, *priority),
                None => line.unset_ready(queue, shard),
            }
        }
        self.return_to_places(line, shard, batch, |waiter| {
            waiter.failed.remove(&shard);
            if !cut {
                waiter.unseen.remove(&shard);
            }
        });
    }

    /// A call has failed: those it was for are looked for elsewhere, and told when there is nowhere else. A shard that
    /// is away is not looked in until [`Waiters::up`].
    pub(super) fn fail(&self, shard: usize, batch: &Batch, error: &Error) {
        let mut line = self.lock();
        let mut done = Vec::new();
        if error.is_outage() {
            done = line.set_down(shard, error);
        } else {
            batch.queues.iter().for_each(|queue| line.unset_ready(queue, shard));
        }
        let done: Vec<Waiter> = done.into_iter().filter_map(|id| line.forget(id)).collect();
        self.return_to_places(line, shard, batch, |waiter| {
            waiter.unseen.remove(&shard);
            waiter.failed.insert(shard, error.clone());
        });
        done.into_iter().for_each(Waiter::dismiss);
    }

    /// The shard answers again. For how long it did not is no part of how long it takes to hand out.
    pub(super) fn up(&self, shard: usize) {
        self.lock().set_up(shard);
        self.news.get(shard).into_iter().for_each(|news| news.since.store(0, Ordering::Relaxed));
        self.tell([shard]);
    }

    fn return_to_places(
        &self,
        mut line: MutexGuard<'_, Line>,
        shard: usize,
        batch: &Batch,
        outcome: impl Fn(&mut Waiter),
    ) {
        // There may be more for others of this shard.
        let mut tell = BTreeSet::from([shard]);
        let mut leaving = Vec::new();
        for id in &batch.ids {
            if !line.taken.remove(id) {
                continue;
            }
            line.all.get_mut(id).into_iter().for_each(&outcome);
            if line.is_done(*id) {
                leaving.extend(line.forget(*id));
            } else {
                line.free(*id);
                tell.extend(line.target(*id));
            }
        }
        drop(line);
        self.tell(tell);
        leaving.into_iter().for_each(Waiter::dismiss);
    }

    /// A script said that the queue has something of this priority.
    pub(super) fn hint(&self, shard: usize, queue: &QueueName, priority: u8) {
        let mut line = self.lock();
        if line.interest.contains_key(queue) {
            line.hint(queue, shard, priority);
            self.tell([shard]);
        }
    }

    /// A sweep found that of `queues` exactly those in `found` have something in this shard.
    pub(super) fn swept(&self, shard: usize, queues: &[QueueName], found: Vec<(QueueName, u8)>) {
        let mut line = self.lock();
        let found: HashMap<QueueName, u8> = found.into_iter().collect();
        for queue in queues {
            match found.get(queue) {
                Some(priority) => line.set_ready(queue, shard, *priority),
                None => line.unset_ready(queue, shard),
            }
        }
        self.tell([shard]);
    }

    /// The queues that somebody waits for.
    pub(super) fn queues(&self) -> Vec<QueueName> {
        self.lock().interest.keys().cloned().collect()
    }

    /// Who waits.
    pub(super) fn workers(&self) -> Vec<String> {
        self.lock().all.values().map(|waiter| waiter.request.worker.clone()).collect()
    }

    /// Why a shard is left out, if one is.
    pub(super) fn down(&self) -> Option<Error> {
        self.lock().down.values().next().cloned()
    }

    /// All get an empty answer, and so does whoever comes later.
    pub(super) fn dismiss(&self) {
        let mut line = self.lock();
        line.dismissed = true;
        let all: Vec<u64> = line.all.keys().copied().collect();
        all.into_iter().for_each(|id| line.part(id));
    }

    pub(super) fn are_dismissed(&self) -> bool {
        self.lock().dismissed
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
        self.waiters.lock().part(self.id);
        self.answer().await
    }
}

impl Drop for Registered {
    fn drop(&mut self) {
        let mut line = self.waiters.lock();
        // One that is being looked for stays until the pump comes back: what it gets meets a closed channel.
        if !line.taken.contains(&self.id) {
            drop(line.forget(self.id));
        }
    }
}
