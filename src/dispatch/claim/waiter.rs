//! A waiting claim: the request, the receiver of its result, and the shards that it has still to check.

use std::collections::BTreeMap;
use std::sync::Arc;

use tokio::sync::oneshot;

use super::delivery::Delivery;
use super::shard_set::ShardSet;
use crate::domain::claim_id::ClaimId;
use crate::domain::queue::QueueName;
use crate::store::{Error, Result};

/// A claim: which tasks a worker wants, and how many.
#[derive(Clone, Debug)]
pub struct ClaimRequest {
    /// Queues, in order of preference.
    pub queues: Vec<QueueName>,
    /// Tasks at most.
    pub max: usize,
    /// Length of the lease, ms.
    pub lease_ms: i64,
    /// Name of the worker.
    pub worker: String,
    /// By which a repetition gets the same tasks; `None`: the claim cannot be repeated.
    pub claim_id: Option<ClaimId>,
}

/// Receives the result of a wait.
pub(super) type ReplySender = oneshot::Sender<Result<Delivery>>;

/// A waiting claim.
pub(super) struct Waiter {
    pub(super) request: Arc<ClaimRequest>,
    pub(super) reply: ReplySender,
    /// Shards that no call has checked for this waiter yet.
    pub(super) unchecked_shards: ShardSet,
    /// Shards whose call failed, with the error.
    pub(super) failed_shards: BTreeMap<usize, Error>,
    /// Whether it goes on waiting once all shards are checked, and none is known to have tasks.
    pub(super) is_long_poll: bool,
    /// Whether it ends once the call that includes it returns.
    pub(super) is_cancelled: bool,
}

impl Waiter {
    /// Ends the wait without a task: with an error if a shard failed.
    pub(super) fn finish_empty(mut self) {
        let result = self.failed_shards.pop_first().map_or(Ok(Delivery::default()), |(_, error)| Err(error));
        // The client may have disconnected.
        let _ = self.reply.send(result);
    }
}
