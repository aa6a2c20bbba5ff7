//! Request batching, by operation. One row makes the operation's batcher, its method and its metrics. Submits and completions
//! are operations of `claim`, because they hand tasks over.

use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::batch::{BatchItem, BatchedOp, Sharing};
use super::batcher::Batcher;
use crate::domain::id::TaskId;
use crate::domain::slot::Slot;
use crate::domain::state::State;
use crate::domain::task::NewTask;
use crate::metrics::HistogramSnapshot;
use crate::store::ops::complete::Completion;
use crate::store::ops::delete::{DeleteReason, Deleted};
use crate::store::ops::fail::Failure;
use crate::store::ops::heartbeat::{LeaseExtended, LeaseHeartbeat};
use crate::store::ops::idempotency::{IdempotencyOutcome, IdempotencyRecord};
use crate::store::ops::{self, LeaseEnd, WhenFull};
use crate::store::{Caller, Error, Result, Shard, Store};

/// Defines [`BatchedOps`] from the table. A row reads: form, name of the script, operation, item, reply, function,
/// which items may share a call, and the function in its place when Redis stays full. The form decides the public method:
/// `one` takes an item, `many` takes a list, and `inner` has none.
macro_rules! batched {
    ($($(#[$doc:meta])*
    $form:ident $name:ident: $op:ident($item:ty) -> $reply:ty = $call:path, $sharing:ident $(, full: $full:path)?;)*) => {
        $(
            $(#[$doc])*
            #[derive(Debug)]
            pub(super) struct $op;

            impl BatchedOp for $op {
                const SHARING: Sharing = Sharing::$sharing;
                type Item = $item;
                type Reply = $reply;
                type Context = ();

                async fn call(
                    shard: &Shard,
                    (): &(),
                    caller: &mut Caller,
                    items: &mut Vec<$item>,
                ) -> Result<Vec<$reply>> {
                    $call(shard, caller, items).await
                }

                $(async fn call_when_full(
                    shard: &Shard,
                    caller: &mut Caller,
                    items: &mut Vec<$item>,
                    _: Error,
                ) -> Result<Vec<$reply>> {
                    $full(shard, caller, items).await
                })?
            }
        )*

        /// A batcher per operation.
        #[derive(Debug)]
        pub struct BatchedOps {
            $(pub(super) $name: Batcher<$op>,)*
        }

        impl BatchedOps {
            pub(super) fn new(store: &Store, tasks: &TaskTracker, stop: &CancellationToken) -> Self {
                BatchedOps { $($name: Batcher::new(store, (), tasks, stop),)* }
            }

            /// Items per call, by operation.
            pub(super) fn batch_items(&self) -> Vec<(&'static str, HistogramSnapshot)> {
                vec![$((stringify!($name), self.$name.batch_items()),)*]
            }

            $(batched!(@method $form $(#[$doc])* $name, $item, $reply);)*
        }
    };
    (@method one $(#[$doc:meta])* $name:ident, $item:ty, $reply:ty) => {
        $(#[$doc])*
        pub async fn $name(&self, item: $item) -> Result<$reply> {
            self.$name.send(item).await
        }
    };
    (@method many $(#[$doc:meta])* $name:ident, $item:ty, $reply:ty) => {
        $(#[$doc])*
        pub async fn $name(&self, items: Vec<$item>) -> Vec<Result<$reply>> {
            self.$name.send_all(items).await
        }
    };
    (@method inner $(#[$doc:meta])* $name:ident, $item:ty, $reply:ty) => {};
}

batched! {
    /// Reports that an attempt failed.
    inner fail: Fail(Failure) -> LeaseEnd = fail, DistinctKeys, full: fail_without_documents;
    /// Extends leases, in order.
    many heartbeat: Heartbeat(LeaseHeartbeat) -> LeaseExtended = heartbeat, DistinctKeys, full: heartbeat_without_documents;
    /// Releases a task without counting an attempt.
    inner release: Release(ops::release::Release) -> LeaseEnd = ops::release::release, DistinctKeys;
    /// Cancels a task, or requests the cancellation of a leased one.
    one cancel: Cancel(TaskId) -> ops::cancel::Cancelled = ops::cancel::cancel, DistinctKeys;
    /// Makes an ended task ready again. Alone: two tasks of one dedupe key must not share a call, and their ids do not
    /// show the key.
    one retry: Retry(TaskId) -> ops::retry::Retried = ops::retry::retry, Alone;
    /// Makes a scheduled task ready before its time.
    one run_now: RunNow(TaskId) -> ops::run_now::RunNow = ops::run_now::run_now, DistinctKeys;
    /// Deletes an ended task.
    one delete: Delete(TaskId) -> Deleted = delete, DistinctKeys;
    /// Opens or completes the record of an Idempotency-Key.
    inner idempotency: Idempotency(IdempotencyRecord) -> IdempotencyOutcome
        = ops::idempotency::record_idempotency, DistinctKeys;
    /// Lets another body use the Idempotency-Key of a refused submit.
    inner refuse_idempotency: RefuseIdempotency(IdempotencyRecord) -> ()
        = ops::idempotency::refuse_idempotency, DistinctKeys;
    /// Has the end of a task published, and returns its state. Subscribing twice equals subscribing once.
    inner subscribe_completion: SubscribeCompletion(TaskId) -> Option<State>
        = ops::subscribe_completion::subscribe_completion, Any;
}

/// Defines calls of reports: one that Redis rejects if it is full, and one that drops large documents instead.
macro_rules! reports {
    ($($name:ident, $without_documents:ident($item:ty) -> $reply:ty;)*) => {
        $(
            async fn $name(shard: &Shard, caller: &mut Caller, items: &[$item]) -> Result<Vec<$reply>> {
                ops::$name::$name(shard, caller, items, WhenFull::Fail).await
            }

            async fn $without_documents(shard: &Shard, caller: &mut Caller, items: &[$item]) -> Result<Vec<$reply>> {
                ops::$name::$name(shard, caller, items, WhenFull::Drop).await
            }
        )*
    };
}

reports! {
    fail, fail_without_documents(Failure) -> LeaseEnd;
    heartbeat, heartbeat_without_documents(LeaseHeartbeat) -> LeaseExtended;
}

async fn delete(shard: &Shard, caller: &mut Caller, ids: &[TaskId]) -> Result<Vec<Deleted>> {
    ops::delete::delete(shard, caller, &DeleteReason::Requested, ids).await
}

impl BatchItem for NewTask {
    fn slot(&self) -> Slot {
        self.id.slot()
    }

    /// The dedupe digest: a script would not see that an earlier item of its call took it.
    fn key(&self) -> [u8; 16] {
        self.dedupe.as_ref().map_or(*self.id.as_bytes(), |dedupe| *dedupe.digest.as_bytes())
    }

    fn document_bytes(&self) -> usize {
        self.payload.get().len()
    }

    fn mark_tried(&mut self) {
        self.may_be_stored = true;
    }
}

impl BatchItem for Completion {
    fn slot(&self) -> Slot {
        self.lease_ref.id.slot()
    }

    fn key(&self) -> [u8; 16] {
        *self.lease_ref.id.as_bytes()
    }

    fn document_bytes(&self) -> usize {
        self.result.get().len()
    }
}

impl BatchItem for Failure {
    fn slot(&self) -> Slot {
        self.lease_ref.id.slot()
    }

    fn key(&self) -> [u8; 16] {
        *self.lease_ref.id.as_bytes()
    }

    fn document_bytes(&self) -> usize {
        self.report.details.as_ref().map_or(0, |details| details.get().len())
    }
}

impl BatchItem for LeaseHeartbeat {
    fn slot(&self) -> Slot {
        self.lease_ref.id.slot()
    }

    fn key(&self) -> [u8; 16] {
        *self.lease_ref.id.as_bytes()
    }

    fn document_bytes(&self) -> usize {
        self.progress.as_ref().map_or(0, |progress| progress.get().len())
    }
}

impl BatchItem for ops::release::Release {
    fn slot(&self) -> Slot {
        self.lease_ref.id.slot()
    }

    fn key(&self) -> [u8; 16] {
        *self.lease_ref.id.as_bytes()
    }
}

impl BatchItem for TaskId {
    fn slot(&self) -> Slot {
        TaskId::slot(self)
    }

    fn key(&self) -> [u8; 16] {
        *self.as_bytes()
    }
}

/// The record of an Idempotency-Key lies in the key's own slot, wherever its task does.
impl BatchItem for IdempotencyRecord {
    fn slot(&self) -> Slot {
        Slot::of_key(self.key.as_bytes())
    }

    fn key(&self) -> [u8; 16] {
        *self.key.as_bytes()
    }
}
