//! Request batching: items of concurrent requests share calls of Redis. Items that arrive while a shard's call is in
//! flight make up its next call. An item never waits for others to arrive.

use std::collections::VecDeque;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use tokio::sync::{mpsc, oneshot};
use tokio::task::yield_now;
use tokio::time::error::Elapsed;
use tokio::time::{Instant, timeout, timeout_at};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::batch::{BatchItem, BatchedOp, MAX_BATCH_ITEMS, Pending, ReplySenders, take_batch};
use crate::background;
use crate::metrics::{Histogram, HistogramSnapshot, SIZE_BUCKETS};
use crate::store::history::has_made_room_for;
use crate::store::{Caller, Error, Result, Shard, Store};

/// Items queued per batch loop. Further requests wait until there is room.
const PENDING_CAPACITY: usize = 4096;
/// How often a call is made again because ended tasks were deleted for it.
const MAX_ROOMS: usize = 5;
/// The deadline of a request, including its time in the queue. The deadline of a single call is well below it.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(10);

/// Batches one operation, with a batch loop per shard. A loop starts with its first item.
pub(super) struct Batcher<Op: BatchedOp> {
    senders: Box<[OnceLock<mpsc::Sender<Pending<Op>>>]>,
    /// Items per call.
    batch_items: Arc<Histogram>,
    store: Store,
    context: Op::Context,
    tasks: TaskTracker,
    stop: CancellationToken,
}

impl<Op: BatchedOp> std::fmt::Debug for Batcher<Op> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Batcher")
    }
}

impl<Op: BatchedOp> Batcher<Op> {
    /// Returns a batcher whose loops run on `tasks`. They end when it is dropped. After `stop`, an item whose loop has
    /// ended gets [`Error::Stopping`]; before, [`Error::Unexpected`].
    pub(super) fn new(store: &Store, context: Op::Context, tasks: &TaskTracker, stop: &CancellationToken) -> Self {
        Batcher {
            senders: store.shards().iter().map(|_| OnceLock::new()).collect(),
            batch_items: Arc::new(Histogram::new(&SIZE_BUCKETS)),
            store: store.clone(),
            context,
            tasks: tasks.clone(),
            stop: stop.clone(),
        }
    }

    /// Items per call so far.
    pub(super) fn batch_items(&self) -> HistogramSnapshot {
        self.batch_items.read()
    }

    /// Sends an item to its shard and returns the reply. Dropping the future does not undo the operation.
    ///
    /// # Errors
    /// [`Error::Unavailable`] after 10 s: the operation may still take effect. Otherwise the error of the call.
    pub(super) async fn send(&self, item: Op::Item) -> Result<Op::Reply> {
        with_request_timeout(async { self.enqueue(item).await?.await.map_err(|_| self.closed())? }).await
    }

    /// Sends items, in order within each shard, and returns their replies in order.
    pub(super) async fn send_all(&self, items: Vec<Op::Item>) -> Vec<Result<Op::Reply>> {
        if items.is_empty() {
            return Vec::new();
        }
        let deadline = Instant::now() + REQUEST_TIMEOUT;
        let mut receivers = Vec::with_capacity(items.len());
        for item in items {
            receivers.push(timeout_at(deadline, self.enqueue(item)).await.map_err(timed_out).flatten());
        }
        let mut replies = Vec::with_capacity(receivers.len());
        for enqueued in receivers {
            replies.push(match enqueued {
                Ok(receiver) => match timeout_at(deadline, receiver).await {
                    Ok(reply) => reply.unwrap_or_else(|_| Err(self.closed())),
                    Err(elapsed) => Err(timed_out(elapsed)),
                },
                Err(error) => Err(error),
            });
        }
        replies
    }

    /// Queues an item behind all earlier ones of its shard.
    async fn enqueue(&self, item: Op::Item) -> Result<oneshot::Receiver<Result<Op::Reply>>> {
        let shard = self.store.shard_for_slot(item.slot());
        shard.breaker.admit()?;
        let sender = self.senders.get(shard.index).ok_or_else(|| self.closed())?.get_or_init(|| {
            let (sender, receiver) = mpsc::channel(PENDING_CAPACITY);
            let batches = BatchLoop::<Op> {
                store: self.store.clone(),
                context: self.context.clone(),
                shard: shard.clone(),
                batch_items: self.batch_items.clone(),
            };
            let batches = batches.run(receiver);
            background::spawn(&self.tasks, "batcher", batches);
            sender
        });
        let (reply, reply_receiver) = oneshot::channel();
        sender.send(Pending { item, reply }).await.map_err(|_| self.closed())?;
        Ok(reply_receiver)
    }

    /// The error of an item whose batch loop has ended.
    fn closed(&self) -> Error {
        closed(&self.stop)
    }
}

/// The error of a request whose background loop has ended: the server is stopping, or the loop has died.
pub(super) fn closed(stop: &CancellationToken) -> Error {
    match stop.is_cancelled() {
        true => Error::Stopping,
        false => Error::Unexpected("a background loop of the server has ended".into()),
    }
}

/// Bounds work by the deadline of a request.
pub(super) async fn with_request_timeout<T>(work: impl Future<Output = Result<T>>) -> Result<T> {
    timeout(REQUEST_TIMEOUT, work).await.map_err(timed_out)?
}

/// The operation may still take effect.
fn timed_out(_: Elapsed) -> Error {
    Error::Unavailable(format!("no answer within {} s", REQUEST_TIMEOUT.as_secs()))
}

/// Makes the calls of one shard, one after another.
struct BatchLoop<Op: BatchedOp> {
    store: Store,
    shard: Shard,
    context: Op::Context,
    batch_items: Arc<Histogram>,
}

impl<Op: BatchedOp> BatchLoop<Op> {
    /// Ends when the batcher is dropped.
    async fn run(self, mut receiver: mpsc::Receiver<Pending<Op>>) {
        let mut caller = Caller::new();
        let mut pending: VecDeque<Pending<Op>> = VecDeque::new();
        let mut received = Vec::new();
        loop {
            if pending.is_empty() {
                if receiver.recv_many(&mut received, MAX_BATCH_ITEMS).await == 0 {
                    return;
                }
                pending.extend(received.drain(..));
            }
            // Requests that this process can read without waiting join the same call.
            yield_now().await;
            while pending.len() < MAX_BATCH_ITEMS
                && let Ok(request) = receiver.try_recv()
            {
                pending.push_back(request);
            }
            let (items, reply_senders) = take_batch(&mut pending);
            self.batch_items.observe(items.len());
            let failed = self.call_each(&mut caller, items, reply_senders).await;
            if let Some((error, mut failed)) = failed {
                // Redis has had its time: the items behind would wait as long for the same error.
                if error.is_outage() {
                    failed.extend(pending.drain(..).map(|request| request.reply));
                    while let Ok(request) = receiver.try_recv() {
                        failed.push(request.reply);
                    }
                }
                for sender in failed {
                    let _ = sender.send(Err(error.clone()));
                }
            }
        }
    }

    /// Calls the operation for all items, and sends their replies. If a call meets unreadable data, it is repeated for each half
    /// of its items, so that only the items of that data fail. Returns another error with the items that are left.
    async fn call_each(
        &self,
        caller: &mut Caller,
        items: Vec<Op::Item>,
        reply_senders: ReplySenders<Op>,
    ) -> Option<(Error, ReplySenders<Op>)> {
        let mut parts = vec![(items, reply_senders)];
        while let Some((mut items, mut senders)) = parts.pop() {
            match self.call_with_room(caller, &mut items).await {
                Ok(replies) => {
                    for (sender, reply) in senders.into_iter().zip(replies) {
                        // The client may have disconnected. The operation took effect all the same.
                        let _ = sender.send(Ok(reply));
                    }
                }
                Err(Error::Unexpected(_)) if items.len() > 1 => {
                    items.iter_mut().for_each(BatchItem::mark_tried);
                    let middle = items.len() / 2;
                    parts.push((items.split_off(middle), senders.split_off(middle)));
                    parts.push((items, senders));
                }
                Err(error @ Error::Unexpected(_)) => {
                    for sender in senders {
                        let _ = sender.send(Err(error.clone()));
                    }
                }
                Err(error) => {
                    senders.extend(parts.into_iter().flat_map(|(_, senders)| senders));
                    return Some((error, senders));
                }
            }
        }
        None
    }

    /// Makes one call. While Redis rejects it because it is full, ended tasks make room for it.
    async fn call_with_room(&self, caller: &mut Caller, items: &mut Vec<Op::Item>) -> Result<Vec<Op::Reply>> {
        let mut rooms = 0;
        loop {
            match Op::call(&self.shard, &self.context, caller, items).await {
                Err(Error::Full(_)) if rooms < MAX_ROOMS && has_made_room_for(&self.store, &self.shard).await => {
                    rooms += 1
                }
                Err(full @ Error::Full(_)) => return Op::call_when_full(&self.shard, caller, items, full).await,
                outcome => return outcome,
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ended_loop_is_stopping_in_a_stopping_server_and_else_unexpected() {
        let stop = CancellationToken::new();
        assert!(matches!(closed(&stop), Error::Unexpected(_)));
        stop.cancel();
        assert!(matches!(closed(&stop), Error::Stopping));
    }
}
