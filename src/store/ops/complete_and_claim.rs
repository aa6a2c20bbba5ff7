//! Completes leased tasks, and leases ready tasks to the claims that follow, in one call.

use std::borrow::Borrow;

use super::claim::{ClaimReply, WaiterRequest, parse_reply, push_requests};
use super::complete::{Completion, completing_call, read_outcomes};
use super::{LeaseEnd, WhenFull};
use crate::domain::digest::Digest;
use crate::domain::queue::QueueName;
use crate::domain::token::Token;
use crate::store::error::Result;
use crate::store::redis::reply::read_list;
use crate::store::redis::script::{Script, script};
use crate::store::shard::{Caller, ScriptCall, Shard};

pub(super) static SCRIPT: Script = script!(write "complete_and_claim", ["due", "events", "counter_entries", ("local function flush_counters(entries)" ["stats_format", "flush_counters"]), "stats_counters", "piece_functions", ("local function use_pieces()" ["pieces"]), ("local function define_passes()" ["passes"]), "index_end", "lease_ends", "wait_times", "front", "claimable", "wheel_reader", ("local function define_key_reader()" ["keyed_member", "key_lines", "key_reader"]), "next_task", "close_queue", "begin_lease", "lease_ready", ("local function define_complete()" ["counts", "transition", "task", "dedupe", "free_dedupe", "finish_task", "outages", "lease", "end_lease", "complete_any"]), ("local function define_repetition()" ["outages", "repeated_lease", "repeated_claim"]), "open_with_claims", "complete_tasks"]);

/// A claim that follows a completion. It gets tasks if the completion is accepted.
#[derive(Clone, Debug)]
pub struct FollowingClaim {
    /// Index of the completion in the call. No two claims have the same.
    pub completion: usize,
    /// The digest of the batch of completions that the claim follows; `None`: it follows one.
    pub batch: Option<Digest>,
    /// The request. It has no claim id: the completed task keeps the leases.
    pub request: WaiterRequest,
}

/// A call that completes tasks, and claims behind them. It may be sent again: each time it returns the same outcomes and
/// leases, without leases that have ended.
pub struct CompleteAndClaimCall<'a, C> {
    call: ScriptCall<'a>,
    completions: &'a [C],
    queues: &'a [QueueName],
    tokens: Vec<Token>,
}

impl<'a, C: Borrow<Completion>> CompleteAndClaimCall<'a, C> {
    /// Builds the call that ends the tasks as completed, if the tokens hold their leases, and leases ready tasks of `queues` to
    /// the claims, in their order.
    pub fn new(
        shard: &'a Shard,
        caller: &mut Caller,
        completions: &'a [C],
        queues: &'a [QueueName],
        claims: &[FollowingClaim],
    ) -> Self {
        let mut call = completing_call(&SCRIPT, shard, caller, completions, WhenFull::Fail);
        let tokens = push_requests(&mut call, queues, claims.iter().map(|claim| &claim.request));
        for FollowingClaim { completion, batch, .. } in claims {
            call.push_usize(completion + 1).push(batch.as_ref().map_or(&[][..], |digest| digest.as_bytes()));
        }
        CompleteAndClaimCall { call, completions, queues, tokens }
    }

    /// Sends the call. The waiters of the reply are the claims.
    ///
    /// # Errors
    /// [`Full`](crate::store::Error::Full) if Redis has no memory left for a large result. After
    /// [`Unavailable`](crate::store::Error::Unavailable), the completed task has the leases that its claim got.
    pub async fn send(&self) -> Result<(Vec<LeaseEnd>, ClaimReply)> {
        let mut reply = read_list(self.call.send().await?)?;
        let outcomes = read_outcomes(&self.call, reply.value()?, self.completions, WhenFull::Fail)?;
        let claimed = parse_reply(reply.value()?, self.queues, &self.tokens)?;
        self.call.transitions().claimed.add(claimed.tasks.len() as u64);
        Ok((outcomes, claimed))
    }
}
