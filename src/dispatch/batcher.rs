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
use crate::metrics::{Histogram, HistogramSnapshot, SIZE_BUCKETS};
use crate::store::{Caller, Error, Result, Shard, Store};

/// Items of one call: enough to spread its fixed cost, few enough to keep it short.
const MAX_BATCH_ITEMS: usize = 100;
/// Requests that may wait for a lane before further ones wait to get in.
const PENDING_CAPACITY: usize = 4096;
/// The deadline of a request, its time in line included; that of a single call lies well below.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(10);

/// An operation that takes a list of items.
pub(super) trait BatchedOp: Send + Sync + 'static {
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

struct Pending<V: BatchedOp> {
    item: V::Item,
    reply: oneshot::Sender<Result<V::Answer>>,
}

/// A lane per shard, begun when it is first needed.
pub(super) struct Batcher<V: BatchedOp> {
    senders: Box<[OnceLock<mpsc::Sender<Pending<V>>>]>,
    /// Items in a call.
    batch_items: Arc<Histogram>,
    store: Store,
    tasks: TaskTracker,
}

impl<V: BatchedOp> std::fmt::Debug for Batcher<V> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Gather")
    }
}

impl<V: BatchedOp> Batcher<V> {
    pub(super) fn new(store: &Store, tasks: &TaskTracker) -> Self {
        let senders = store.shards().iter().map(|_| OnceLock::new()).collect();
        Batcher {
            senders,
            batch_items: Arc::new(Histogram::new(&SIZE_BUCKETS)),
            store: store.clone(),
            tasks: tasks.clone(),
        }
    }

    /// How many items its calls had.
    pub(super) fn batch_items(&self) -> HistogramSnapshot {
        self.batch_items.read()
    }

    /// Does it in the shard of `slot`. Dropping the future does not undo it.
    pub(super) async fn send(&self, slot: Slot, item: V::Item) -> Result<V::Answer> {
        with_request_timeout(async { self.enqueue(slot, item).await?.await.map_err(|_| stopping())? }).await
    }

    /// Does all of it, in each shard in order; the answers in order.
    pub(super) async fn send_all(&self, items: Vec<(Slot, V::Item)>) -> Vec<Result<V::Answer>> {
        let deadline = Instant::now() + REQUEST_TIMEOUT;
        let mut receivers = Vec::with_capacity(items.len());
        for (slot, item) in items {
            receivers.push(
                timeout_at(deadline, self.enqueue(slot, item)).await.map_err(timed_out).and_then(|enqueued| enqueued),
            );
        }
        let mut replies = Vec::with_capacity(receivers.len());
        for enqueued in receivers {
            replies.push(match enqueued {
                Ok(receiver) => match timeout_at(deadline, receiver).await {
                    Ok(reply) => reply.unwrap_or_else(|_| Err(stopping())),
                    Err(elapsed) => Err(timed_out(elapsed)),
                },
                Err(error) => Err(error),
            });
        }
        replies
    }

    /// Puts it into the lane, where it is its turn after all that came before.
    async fn enqueue(&self, slot: Slot, item: V::Item) -> Result<oneshot::Receiver<Result<V::Answer>>> {
        let shard = self.store.shard_for_slot(slot);
        shard.breaker.admit()?;
        let sender = self.senders.get(shard.index).ok_or_else(stopping)?.get_or_init(|| {
            let (sender, receiver) = mpsc::channel(PENDING_CAPACITY);
            self.tasks.spawn(batch_loop::<V>(shard.clone(), receiver, self.batch_items.clone()));
            sender
        });
        let (reply, reply_receiver) = oneshot::channel();
        sender.send(Pending { item, reply }).await.map_err(|_| stopping())?;
        Ok(reply_receiver)
    }
}

fn stopping() -> Error {
    Error::Unavailable("the server is stopping".into())
}

/// Does it within the deadline of a request.
pub(super) async fn with_request_timeout<T>(work: impl Future<Output = Result<T>>) -> Result<T> {
    timeout(REQUEST_TIMEOUT, work).await.map_err(timed_out)?
}

/// It may be done yet.
fn timed_out(_: Elapsed) -> Error {
    Error::Unavailable(format!("no answer within {} s", REQUEST_TIMEOUT.as_secs()))
}

/// Ends when the gather is dropped.
async fn batch_loop<V: BatchedOp>(shard: Shard, mut receiver: mpsc::Receiver<Pending<V>>, batch_items: Arc<Histogram>) {
    let mut caller = Caller::new();
    let mut pending: VecDeque<Pending<V>> = VecDeque::new();
    let mut received = Vec::new();
    loop {
        if pending.is_empty() {
            if receiver.recv_many(&mut received, MAX_BATCH_ITEMS).await == 0 {
                return;
            }
            pending.extend(received.drain(..));
        }
        // What this server can still take in without waiting goes into the same call.
        yield_now().await;
        while pending.len() < MAX_BATCH_ITEMS
            && let Ok(request) = receiver.try_recv()
        {
            pending.push_back(request);
        }
        let (items, replies) = take_batch(&mut pending);
        batch_items.observe(items.len());
        match V::call(&shard, &mut caller, &items).await {
            Ok(outcomes) => {
                for (reply, outcome) in replies.into_iter().zip(outcomes) {
                    // Whoever asked may have gone: it is done all the same.
                    let _ = reply.send(Ok(outcome));
                }
            }
            Err(error) => {
                let mut failed = replies;
                // Those behind would wait as long for the same: Redis has been given its time.
                if error.is_outage() {
                    failed.extend(pending.drain(..).map(|request| request.reply));
                    while let Ok(request) = receiver.try_recv() {
                        failed.push(request.reply);
                    }
                }
                for reply in failed {
                    let _ = reply.send(Err(error.clone()));
                }
            }
        }
    }
}

type ReplySenders<V> = Vec<oneshot::Sender<Result<<V as BatchedOp>::Answer>>>;

/// Takes what makes the next call from the front of what waits. The first that must not go with it ends it, so that
/// all stay in order.
fn take_batch<V: BatchedOp>(pending: &mut VecDeque<Pending<V>>) -> (Vec<V::Item>, ReplySenders<V>) {
    let (mut items, mut replies) = (Vec::new(), Vec::new());
    let (mut keys, mut bytes) = (HashSet::new(), 0);
    while items.len() < MAX_BATCH_ITEMS
        && let Some(request) = pending.pop_front()
    {
        bytes += V::weight(&request.item);
        let exceeds_limit = bytes > limits::MAX_CALL_BYTES && !items.is_empty();
        if exceeds_limit || !keys.insert(V::key(&request.item)) {
            pending.push_front(request);
            break;
        }
        items.push(request.item);
        replies.push(request.reply);
    }
    (items, replies)
}
