//! The operations that are gathered.

use super::batcher::BatchedOp;
use crate::domain::digest::Digest;
use crate::domain::id::TaskId;
use crate::domain::slot::Slot;
use crate::domain::state::State;
use crate::domain::task::NewTask;
use crate::store::ops;
use crate::store::ops::{
    LeaseEnd, cancel, complete, delete, fail, heartbeat, idempotency, release, retry, submit, subscribe_completion,
};
use crate::store::{Caller, Result, Shard};

/// An operation, its item, its answer, the key and the weight of an item, and the call.
macro_rules! verb {
    ($(#[$doc:meta])* $name:ident: $item:ty => $answer:ty, |$one:ident| $key:expr, $weight:expr, $call:expr) => {
        $(#[$doc])*
        #[derive(Debug)]
        pub(super) struct $name;

        impl BatchedOp for $name {
            type Item = $item;
            type Answer = $answer;

            fn key($one: &$item) -> [u8; 16] {
                let _ = $one;
                $key
            }

            fn weight($one: &$item) -> usize {
                let _ = $one;
                $weight
            }

            async fn call(shard: &Shard, caller: &mut Caller, items: &[$item]) -> Result<Vec<$answer>> {
                $call(shard, caller, items).await
            }
        }
    };
}

const BASE_BYTES: usize = 64;

verb!(Submit: NewTask => submit::Submitted,
    |task| task.dedupe.as_ref().map_or(*task.id.as_bytes(), |dedupe| *dedupe.digest.as_bytes()),
    task.payload.get().len() + BASE_BYTES, submit::submit);
verb!(Complete: complete::Completion => LeaseEnd,
    |done| *done.held.id.as_bytes(), done.result.get().len() + BASE_BYTES, complete::complete);
verb!(Fail: fail::Failure => LeaseEnd,
    |failure| *failure.held.id.as_bytes(),
    failure.report.details.as_ref().map_or(0, |details| details.get().len()) + BASE_BYTES, fail::fail);
verb!(Heartbeat: heartbeat::LeaseHeartbeat => heartbeat::LeaseExtended,
    |beat| *beat.held.id.as_bytes(),
    beat.progress.as_ref().map_or(0, |progress| progress.get().len()) + BASE_BYTES, heartbeat::heartbeat);
verb!(Release: release::Release => LeaseEnd, |release| *release.held.id.as_bytes(), BASE_BYTES, release::release);
verb!(Cancel: TaskId => cancel::Cancelled, |id| *id.as_bytes(), BASE_BYTES, cancel::cancel);
verb!(
    /// Two of one dedupe key must not go together either, which the ids do not tell: one at a time.
    Retry: TaskId => retry::Retried, |id| [0; 16], BASE_BYTES, retry::retry);
verb!(Delete: TaskId => delete::Deleted, |id| *id.as_bytes(), BASE_BYTES, delete);
verb!(Remember: idempotency::IdempotencyRecord => idempotency::IdempotencyOutcome, |note| *note.key.as_bytes(), BASE_BYTES, idempotency::record_idempotency);
verb!(
    /// Watching twice is watching once: any may go together, which a key that nobody else has says.
    Watch: TaskId => Option<State>, |id| rand::random(), BASE_BYTES, subscribe_completion::subscribe_completion);

async fn delete(shard: &Shard, caller: &mut Caller, ids: &[TaskId]) -> Result<Vec<delete::Deleted>> {
    ops::delete::delete(shard, caller, &delete::DeleteReason::Requested, ids).await
}

/// Where the record of an Idempotency-Key lies.
pub(super) fn slot_of_idempotency_key(key: &Digest) -> Slot {
    Slot::of_key(key.as_bytes())
}
