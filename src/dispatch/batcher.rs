//! Request batching: items of concurrent requests share calls of Redis. Items that arrive while a shard's call is in
//! flight make up its next call. An item never waits for others to arrive.

use std::collections::{HashSet, VecDeque};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use tokio::sync::{mpsc, oneshot};
use tokio::task::yield_now;
use tokio::time::error::Elapsed;
use tokio::time::{Instant, timeout, timeout_at};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::background;
use crate::domain::limits;
use crate::domain::slot::Slot;
use crate::metrics::{Histogram, HistogramSnapshot, SIZE_BUCKETS};
use crate::store::history::has_made_room_for;
use crate::store::{Caller, Error, Result, Shard, Store};

/// Items of one call: enough to spread its fixed cost, few enough to keep it short.
const MAX_BATCH_ITEMS: usize = 100;
/// Items queued per batch loop. Further requests wait until there is room.
const PENDING_CAPACITY: usize = 4096;
/// The deadline of a request, including its time in the queue. The deadline of a single call is well below it.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(10);
/// Bytes of a call that an item takes beside its documents.
const BASE_BYTES: usize = 64;

/// An operation that takes a list of items and returns a list of replies.
pub(super) trait BatchedOp: Send + Sync + 'static {
    /// Which items may share a call.
    const SHARING: Sharing;
    /// The input of one item.
    type Item: BatchItem;
    /// The result of one item.
    type Reply: Send + 'static;

    /// Makes one call. Returns one reply per item, in order. A reply may take its item along;
    /// after an error the items stay.
    fn call(
        shard: &Shard,
        caller: &mut Caller,
        items: &mut Vec<Self::Item>,
    ) -> impl Future<Output = Result<Vec<Self::Reply>>> + Send;

    /// Makes the call after Redis has rejected it with `full`, and no ended task could make room for it.
    fn call_when_full(
        _shard: &Shard,
        _caller: &mut Caller,
        _items: &mut Vec<Self::Item>,
        full: Error,
    ) -> impl Future<Output = Result<Vec<Self::Reply>>> + Send {
        async { Err(full) }
    }
}

/// An item of a batched operation.
pub(super) trait BatchItem: Send + Sync + 'static {
    /// The slot that decides its shard.
    fn slot(&self) -> Slot;

    /// Identifies the record that the item writes: see [`Sharing::DistinctKeys`].
    fn key(&self) -> [u8; 16];

    /// Bytes of the documents in it.
    fn document_bytes(&self) -> usize {
        0
    }

    /// Notes that a call with the item has failed, and may have taken effect for it.
    fn mark_tried(&mut self) {}
}

/// Which items may share a call. A script does not see its own writes, so items that depend on each other must not.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Sharing {
    /// Items of different keys.
    DistinctKeys,
    /// Any items.
    Any,
    /// None: each call takes one item.
    Alone,
}

/// An item that waits for its call.
struct Pending<Op: BatchedOp> {
    item: Op::Item,
    reply: oneshot::Sender<Result<Op::Reply>>,
}

/// Batches one operation, with a batch loop per shard. A loop starts with its first item.
pub(super) struct Batcher<Op: BatchedOp> {
    senders: Box<[OnceLock<mpsc::Sender<Pending<Op>>>]>,
    /// Items per call.
    batch_items: Arc<Histogram>,
    store: Store,
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
    pub(super) fn new(store: &Store, tasks: &TaskTracker, stop: &CancellationToken) -> Self {
        Batcher {
            senders: store.shards().iter().map(|_| OnceLock::new()).collect(),
            batch_items: Arc::new(Histogram::new(&SIZE_BUCKETS)),
            store: store.clone(),
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
            let batches = batch_loop::<Op>(self.store.clone(), shard.clone(), receiver, self.batch_items.clone());
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

/// Makes the calls of one shard, one after another. Ends when the batcher is dropped.
async fn batch_loop<Op: BatchedOp>(
    store: Store,
    shard: Shard,
    mut receiver: mpsc::Receiver<Pending<Op>>,
    batch_items: Arc<Histogram>,
) {
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
        batch_items.observe(items.len());
        let failed = call_each::<Op>(&store, &shard, &mut caller, items, reply_senders).await;
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
async fn call_each<Op: BatchedOp>(
    store: &Store,
    shard: &Shard,
    caller: &mut Caller,
    items: Vec<Op::Item>,
    reply_senders: ReplySenders<Op>,
) -> Option<(Error, ReplySenders<Op>)> {
    let mut parts = vec![(items, reply_senders)];
    while let Some((mut items, mut senders)) = parts.pop() {
        match call_with_room::<Op>(store, shard, caller, &mut items).await {
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

/// How often a call is made again because ended tasks were deleted for it.
const MAX_ROOMS: usize = 5;

/// Makes one call. While Redis rejects it because it is full, ended tasks make room for it.
async fn call_with_room<Op: BatchedOp>(
    store: &Store,
    shard: &Shard,
    caller: &mut Caller,
    items: &mut Vec<Op::Item>,
) -> Result<Vec<Op::Reply>> {
    let mut rooms = 0;
    loop {
        match Op::call(shard, caller, items).await {
            Err(Error::Full(_)) if rooms < MAX_ROOMS && has_made_room_for(store, shard).await => rooms += 1,
            Err(full @ Error::Full(_)) => return Op::call_when_full(shard, caller, items, full).await,
            outcome => return outcome,
        }
    }
}

type ReplySenders<Op> = Vec<oneshot::Sender<Result<<Op as BatchedOp>::Reply>>>;

/// Takes the next call's items off the front. The first item that must not join ends the batch, which keeps the order.
fn take_batch<Op: BatchedOp>(pending: &mut VecDeque<Pending<Op>>) -> (Vec<Op::Item>, ReplySenders<Op>) {
    let (mut items, mut reply_senders) = (Vec::new(), Vec::new());
    let (mut keys, mut bytes) = (HashSet::new(), 0);
    let max_items = if Op::SHARING == Sharing::Alone { 1 } else { MAX_BATCH_ITEMS };
    while items.len() < max_items
        && let Some(request) = pending.pop_front()
    {
        bytes += request.item.document_bytes() + BASE_BYTES;
        let exceeds_limit = bytes > limits::MAX_CALL_BYTES && !items.is_empty();
        let repeats_key = Op::SHARING == Sharing::DistinctKeys && !keys.insert(request.item.key());
        if exceeds_limit || repeats_key {
            pending.push_front(request);
            break;
        }
        items.push(request.item);
        reply_senders.push(request.reply);
    }
    (items, reply_senders)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// An item with its key and the length of its document.
    struct Item(u8, usize);

    impl BatchItem for Item {
        fn slot(&self) -> Slot {
            Slot::of_key(b"")
        }

        fn key(&self) -> [u8; 16] {
            [self.0; 16]
        }

        fn document_bytes(&self) -> usize {
            self.1
        }
    }

    /// Defines an operation that is never called.
    macro_rules! op {
        ($op:ident, $sharing:ident) => {
            struct $op;

            impl BatchedOp for $op {
                const SHARING: Sharing = Sharing::$sharing;
                type Item = Item;
                type Reply = ();

                async fn call(_: &Shard, _: &mut Caller, _: &mut Vec<Item>) -> Result<Vec<()>> {
                    Ok(Vec::new())
                }
            }
        };
    }

    op!(Distinct, DistinctKeys);
    op!(AnyItems, Any);
    op!(OneItem, Alone);

    /// The sizes of all batches, in order.
    fn batch_sizes<Op: BatchedOp<Item = Item>>(items: impl IntoIterator<Item = Item>) -> Vec<usize> {
        let pending = items.into_iter().map(|item| Pending { item, reply: oneshot::channel().0 });
        let mut pending: VecDeque<Pending<Op>> = pending.collect();
        let mut sizes = Vec::new();
        while !pending.is_empty() {
            sizes.push(take_batch(&mut pending).0.len());
        }
        sizes
    }

    #[test]
    fn items_share_a_batch_as_their_operation_allows() {
        let items = || [1, 2, 1, 3].map(|key| Item(key, 0));
        assert_eq!(batch_sizes::<Distinct>(items()), [2, 2]);
        assert_eq!(batch_sizes::<AnyItems>(items()), [4]);
        assert_eq!(batch_sizes::<OneItem>(items()), [1, 1, 1, 1]);
    }

    #[test]
    fn batch_ends_at_its_number_of_items_and_at_the_bytes_of_a_call() {
        assert_eq!(batch_sizes::<AnyItems>((0..250).map(|_| Item(0, 0))), [100, 100, 50]);
        let half = limits::MAX_CALL_BYTES / 2;
        let sizes = [half, half - 2 * BASE_BYTES, 1, 2 * limits::MAX_CALL_BYTES, 0];
        assert_eq!(batch_sizes::<AnyItems>(sizes.map(|bytes| Item(0, bytes))), [2, 1, 1, 1]);
    }

    #[test]
    fn ended_loop_is_stopping_in_a_stopping_server_and_else_unexpected() {
        let stop = CancellationToken::new();
        assert!(matches!(closed(&stop), Error::Unexpected(_)));
        stop.cancel();
        assert!(matches!(closed(&stop), Error::Stopping));
    }
}
