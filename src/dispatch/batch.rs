//! The operations whose items share calls, and the choice of the items of a call.

use std::collections::{HashSet, VecDeque};

use tokio::sync::oneshot;

use crate::domain::limits;
use crate::domain::slot::Slot;
use crate::store::{Caller, Error, Result, Shard};

/// Items of one call: enough to spread its fixed cost, few enough to keep it short.
pub(super) const MAX_BATCH_ITEMS: usize = 100;
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
    /// The data that all calls share.
    type Context: Clone + Send + Sync + 'static;

    /// Makes one call. Returns one reply per item, in order. A reply may take its item along;
    /// after an error the items stay.
    fn call(
        shard: &Shard,
        context: &Self::Context,
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
pub(super) struct Pending<Op: BatchedOp> {
    pub(super) item: Op::Item,
    pub(super) reply: oneshot::Sender<Result<Op::Reply>>,
}

pub(super) type ReplySenders<Op> = Vec<oneshot::Sender<Result<<Op as BatchedOp>::Reply>>>;

/// Takes the next call's items off the front. The first item that must not join ends the batch, which keeps the order.
pub(super) fn take_batch<Op: BatchedOp>(pending: &mut VecDeque<Pending<Op>>) -> (Vec<Op::Item>, ReplySenders<Op>) {
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
                type Context = ();

                async fn call(_: &Shard, (): &(), _: &mut Caller, _: &mut Vec<Item>) -> Result<Vec<()>> {
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
}
