//! Gathers what concurrent requests want of a shard: what comes in while a call is in flight makes the next call.
//! Nothing waits for company.

use std::collections::{HashSet, VecDeque};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use tokio::sync::{mpsc, oneshot};
use tokio::task::yield_now;
use tokio::time::error::Elapsed;
use tokio::time::{Instant, timeout, timeout_at};
use tokio_util::task::TaskTracker;

use crate::domain::limits;
use crate::domain::slot::Slot;
use crate::measure::{Distribution, Histogram, SIZE};
use crate::store::{Caller, Error, Result, Shard, Store};

/// Items of one call: enough to spread its fixed cost, few enough to keep it short.
const ITEMS: usize = 100;
/// Requests that may wait for a lane before further ones wait to get in.
const BACKLOG: usize = 4096;
/// The deadline of a request, its time in line included; that of a single call lies well below.
const DEADLINE: Duration = Duration::from_secs(10);

/// An operation that takes a list of items.
pub(super) trait Verb: Send + Sync + 'static {
    /// What is asked.
    type Item: Send + Sync + 'static;
    /// What is answered.
    type Answer: Send + 'static;

    /// Items of equal keys never go into one call: a script does not see its own writes.
    fn key(item: &Self::Item) -> [u8; 16];

    /// Bytes of documents in it.
    fn weight(item: &Self::Item) -> usize;

    /// One call.
    fn call(
        shard: &Shard,
        caller: &mut Caller,
        items: &[Self::Item],
    ) -> impl Future<Output = Result<Vec<Self::Answer>>> + Send;
}

struct Job<V: Verb> {
    item: V::Item,
    answer: oneshot::Sender<Result<V::Answer>>,
}

/// A lane per shard, begun when it is first needed.
pub(super) struct Gather<V: Verb> {
    lanes: Box<[OnceLock<mpsc::Sender<Job<V>>>]>,
    /// Items in a call.
    sizes: Arc<Histogram>,
    store: Store,
    tasks: TaskTracker,
}

impl<V: Verb> std::fmt::Debug for Gather<V> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Gather")
    }
}

impl<V: Verb> Gather<V> {
    pub(super) fn new(store: &Store, tasks: &TaskTracker) -> Self {
        let lanes = store.shards().iter().map(|_| OnceLock::new()).collect();
        Gather { lanes, sizes: Arc::new(Histogram::new(&SIZE)), store: store.clone(), tasks: tasks.clone() }
    }

    /// How many items its calls had.
    pub(super) fn sizes(&self) -> Distribution {
        self.sizes.read()
    }

    /// Does it in the shard of `slot`. Dropping the future does not undo it.
    pub(super) async fn send(&self, slot: Slot, item: V::Item) -> Result<V::Answer> {
        in_time(async { self.enter(slot, item).await?.await.map_err(|_| gone())? }).await
    }

    /// Does all of it, in each shard in order; the answers in order.
    pub(super) async fn send_all(&self, items: Vec<(Slot, V::Item)>) -> Vec<Result<V::Answer>> {
        let deadline = Instant::now() + DEADLINE;
        let mut entered = Vec::with_capacity(items.len());
        for (slot, item) in items {
            entered.push(timeout_at(deadline, self.enter(slot, item)).await.map_err(late).and_then(|entered| entered));
        }
        let mut answers = Vec::with_capacity(entered.len());
        for answered in entered {
            answers.push(match answered {
                Ok(answered) => match timeout_at(deadline, answered).await {
                    Ok(answer) => answer.unwrap_or_else(|_| Err(gone())),
                    Err(elapsed) => Err(late(elapsed)),
                },
                Err(error) => Err(error),
            });
        }
        answers
    }

    /// Puts it into the lane, where it is its turn after all that came before.
    async fn enter(&self, slot: Slot, item: V::Item) -> Result<oneshot::Receiver<Result<V::Answer>>> {
        let shard = self.store.shard_of(slot);
        shard.gate.admit()?;
        let lane = self.lanes.get(shard.index).ok_or_else(gone)?.get_or_init(|| {
            let (lane, jobs) = mpsc::channel(BACKLOG);
            self.tasks.spawn(run::<V>(shard.clone(), jobs, self.sizes.clone()));
            lane
        });
        let (answer, answered) = oneshot::channel();
        lane.send(Job { item, answer }).await.map_err(|_| gone())?;
        Ok(answered)
    }
}

fn gone() -> Error {
    Error::Unavailable("the server is stopping".into())
}

/// Does it within the deadline of a request.
pub(super) async fn in_time<T>(work: impl Future<Output = Result<T>>) -> Result<T> {
    timeout(DEADLINE, work).await.map_err(late)?
}

/// It may be done yet.
fn late(_: Elapsed) -> Error {
    Error::Unavailable(format!("no answer within {} s", DEADLINE.as_secs()))
}

/// Ends when the gather is dropped.
async fn run<V: Verb>(shard: Shard, mut jobs: mpsc::Receiver<Job<V>>, sizes: Arc<Histogram>) {
    let mut caller = Caller::new();
    let mut waiting: VecDeque<Job<V>> = VecDeque::new();
    let mut fresh = Vec::new();
    loop {
        if waiting.is_empty() {
            if jobs.recv_many(&mut fresh, ITEMS).await == 0 {
                return;
            }
            waiting.extend(fresh.drain(..));
        }
        // What this server can still take in without waiting goes into the same call.
        yield_now().await;
        while waiting.len() < ITEMS
            && let Ok(job) = jobs.try_recv()
        {
            waiting.push_back(job);
        }
        let (items, answers) = next_call(&mut waiting);
        sizes.observe(items.len());
        match V::call(&shard, &mut caller, &items).await {
            Ok(outcomes) => {
                for (answer, outcome) in answers.into_iter().zip(outcomes) {
                    // Whoever asked may have gone: it is done all the same.
                    let _ = answer.send(Ok(outcome));
                }
            }
            Err(error) => {
                let mut failed = answers;
                // Those behind would wait as long for the same: Redis has been given its time.
                if error.is_outage() {
                    failed.extend(waiting.drain(..).map(|job| job.answer));
                    while let Ok(job) = jobs.try_recv() {
                        failed.push(job.answer);
                    }
                }
                for answer in failed {
                    let _ = answer.send(Err(error.clone()));
                }
            }
        }
    }
}

type Answers<V> = Vec<oneshot::Sender<Result<<V as Verb>::Answer>>>;

/// Takes what makes the next call from the front of what waits. The first that must not go with it ends it, so that
/// all stay in order.
fn next_call<V: Verb>(waiting: &mut VecDeque<Job<V>>) -> (Vec<V::Item>, Answers<V>) {
    let (mut items, mut answers) = (Vec::new(), Vec::new());
    let (mut keys, mut weight) = (HashSet::new(), 0);
    while items.len() < ITEMS
        && let Some(job) = waiting.pop_front()
    {
        weight += V::weight(&job.item);
        let too_heavy = weight > limits::CALL_BYTES && !items.is_empty();
        if too_heavy || !keys.insert(V::key(&job.item)) {
            waiting.push_front(job);
            break;
        }
        items.push(job.item);
        answers.push(job.answer);
    }
    (items, answers)
}
