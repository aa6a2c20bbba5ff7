//! Claims that follow completions: the call that completes a task also leases the next ones to its worker.
//!
//! The call serves a claim only if that overtakes no waiter of this server, and if the claim would check this shard first.
//! Otherwise, and if the call finds no task, the claim goes on like any other.

use std::borrow::Borrow;

use tokio::time::Instant;

use super::delivery::Delivery;
use super::hand_off::HandOffs;
use super::next_call::any_best_shard;
use super::ready_cache::Epoch;
use super::wait_queue::WaitQueue;
use super::waiter::ClaimRequest;
use super::waiters::Waiters;
use crate::dispatch::batch::{BatchItem, BatchedOp, Sharing};
use crate::dispatch::task_spans::LeaseReport;
use crate::domain::digest::Digest;
use crate::domain::queue::QueueName;
use crate::domain::slot::Slot;
use crate::domain::task::ClaimedTask;
use crate::store::ops::claim::{ClaimReply, Front, WaiterRequest};
use crate::store::ops::complete::{Completion, complete};
use crate::store::ops::complete_and_claim::{CompleteAndClaimCall, FollowingClaim};
use crate::store::ops::{LeaseEnd, LeaseRef, WhenFull};
use crate::store::{Caller, Error, Result, Shard};

/// The claim that follows a completion.
#[derive(Clone, Debug)]
pub struct NextClaim {
    /// The request, whose claim id counts only if the call that completes the task does not serve it.
    pub request: ClaimRequest,
    /// Whether it waits for a task.
    pub is_long_poll: bool,
    /// The digest of the batch of completions that it follows; `None`: it follows one.
    pub batch: Option<Digest>,
}

/// The tasks for the claim that follows a completion, from the call that completed the task.
#[derive(Default, Debug)]
pub struct NextTasks {
    /// The tasks that it claimed.
    pub(super) delivery: Delivery,
    /// The shard, if it has no task for the claim.
    pub(super) checked: Option<usize>,
}

impl NextTasks {
    /// Whether there is no task.
    pub fn is_empty(&self) -> bool {
        self.delivery.tasks().is_empty()
    }
}

/// A task to complete, and the claim that follows.
#[derive(Debug)]
pub(in crate::dispatch) struct CompleteRequest {
    pub(in crate::dispatch) completion: Completion,
    pub(in crate::dispatch) next: Option<Box<NextClaim>>,
}

/// The outcome of a completion, and of the claim that follows.
#[derive(Debug)]
pub(in crate::dispatch) struct Completed {
    pub(in crate::dispatch) end: LeaseEnd,
    pub(in crate::dispatch) next: NextTasks,
}

impl Borrow<Completion> for CompleteRequest {
    fn borrow(&self) -> &Completion {
        &self.completion
    }
}

impl BatchItem for CompleteRequest {
    fn slot(&self) -> Slot {
        self.completion.slot()
    }

    fn key(&self) -> [u8; 16] {
        self.completion.key()
    }

    fn document_bytes(&self) -> usize {
        self.completion.document_bytes()
    }
}

impl LeaseReport for CompleteRequest {
    fn lease(&self) -> &LeaseRef {
        &self.completion.lease_ref
    }
}

impl AsRef<LeaseEnd> for Completed {
    fn as_ref(&self) -> &LeaseEnd {
        &self.end
    }
}

/// Completes a task, and claims the next ones.
#[derive(Debug)]
pub(super) struct Complete;

impl BatchedOp for Complete {
    const SHARING: Sharing = Sharing::DistinctKeys;
    type Item = CompleteRequest;
    type Reply = Completed;
    type Context = std::sync::Arc<HandOffs>;

    async fn call(
        shard: &Shard,
        hand_offs: &Self::Context,
        caller: &mut Caller,
        requests: &mut Vec<CompleteRequest>,
    ) -> Result<Vec<Completed>> {
        hand_offs.complete(shard, caller, requests).await
    }

    async fn call_when_full(
        shard: &Shard,
        caller: &mut Caller,
        requests: &mut Vec<CompleteRequest>,
        _: Error,
    ) -> Result<Vec<Completed>> {
        Ok(without_claims(complete(shard, caller, requests, WhenFull::Drop).await?))
    }
}

fn without_claims(ends: Vec<LeaseEnd>) -> Vec<Completed> {
    ends.into_iter().map(|end| Completed { end, next: NextTasks::default() }).collect()
}

/// The claims that a call serves.
#[derive(Default, Debug)]
struct ServedClaims {
    queues: Vec<QueueName>,
    claims: Vec<FollowingClaim>,
    /// For each claim: whether the call reads all of its queues.
    reads_all: Vec<bool>,
    /// The epoch before the call is sent.
    sent_at: Epoch,
}

impl WaitQueue {
    /// Whether a waiter wants the queue, also one that a running call includes.
    fn has_waiters(&self, queue: &QueueName) -> bool {
        let wants = |id: &u64| self.waiters.get(id).is_some_and(|waiter| waiter.request.queues.contains(queue));
        self.idle_by_queue.contains_key(queue) || self.in_flight.iter().any(wants)
    }

    /// Whether a claim of these queues overtakes no waiter, and checks this shard first. If several shards may have tasks,
    /// that is known only if each queue is known to be ready or empty in each of the others.
    fn may_check_first(&self, queues: &[QueueName], shard: usize, is_long_poll: bool) -> bool {
        let is_others = |queue: &QueueName| self.has_waiters(queue) || self.is_yielded(queue, shard);
        if self.is_stopping || queues.iter().any(is_others) {
            return false;
        }
        let unchecked = self.shards_to_check(queues, is_long_poll);
        let Some(ready) = self.preferred_ready_shards(queues) else { return unchecked.iter().eq([shard]) };
        let is_known = |queue: &QueueName, shard: usize| {
            let may_have_tasks = || self.ready_cache.possible_shards(std::slice::from_ref(queue)).contains(shard);
            self.is_ready(queue, shard) || !may_have_tasks()
        };
        let mut others = unchecked.iter().filter(|other| *other != shard);
        unchecked.contains(shard)
            && others.all(|other| queues.iter().all(|queue| is_known(queue, other)))
            && any_best_shard(ready) == Some(shard)
    }
}

impl Waiters {
    /// Returns the claims that a call with these completions serves.
    fn served_claims(&self, shard: &Shard, requests: &[CompleteRequest]) -> ServedClaims {
        let mut served = ServedClaims::default();
        let mut next_claims =
            requests.iter().enumerate().filter_map(|(index, request)| Some((index, request.next.as_ref()?))).peekable();
        if next_claims.peek().is_none() {
            return served;
        }
        let mut wait_queue = self.lock();
        for (completion, next) in next_claims {
            let ClaimRequest { ref queues, max, lease_ms, ref worker, claim_id: _ } = next.request;
            let is_readable = !queues.iter().any(|queue| shard.unreadable().has_failed(shard.index, queue));
            if !is_readable || !wait_queue.may_check_first(queues, shard.index, next.is_long_poll) {
                continue;
            }
            let read = wait_queue.queues_to_read(queues, shard.index, true).map(|queue| {
                served.queues.iter().position(|known| known == queue).unwrap_or_else(|| {
                    served.queues.push(queue.clone());
                    served.queues.len() - 1
                })
            });
            let read: Vec<usize> = read.collect();
            served.reads_all.push(read.len() == queues.len());
            let request = WaiterRequest { max, lease_ms, worker: worker.clone(), claim_id: None, queues: read };
            served.claims.push(FollowingClaim { completion, batch: next.batch, request });
        }
        // The cache keeps the findings of the call for later waiters, though the queue has none now.
        for queue in &served.queues {
            wait_queue.ready_cache.add_waiter(queue);
            wait_queue.ready_cache.remove_waiter(queue);
        }
        served.sent_at = wait_queue.ready_cache.epoch();
        served
    }

    /// Applies what the call has left of the queues.
    fn apply_fronts(&self, shard: usize, served: &ServedClaims, fronts: &[(usize, Front)]) {
        let mut wait_queue = self.lock();
        let mut has_tasks = false;
        for (queue, front) in fronts.iter().filter_map(|(index, front)| Some((served.queues.get(*index)?, *front))) {
            wait_queue.apply_check(queue, shard, served.sent_at, front);
            has_tasks |= wait_queue.is_ready(queue, shard) && wait_queue.idle_by_queue.contains_key(queue);
        }
        drop(wait_queue);
        if has_tasks {
            self.trigger([shard]);
        }
    }
}

impl HandOffs {
    /// Completes the tasks, and claims for the requests that follow them.
    async fn complete(
        &self,
        shard: &Shard,
        caller: &mut Caller,
        requests: &[CompleteRequest],
    ) -> Result<Vec<Completed>> {
        let served = match shard.breaker.check() {
            Ok(()) => self.waiters.served_claims(shard, requests),
            Err(_) => ServedClaims::default(),
        };
        if served.claims.is_empty() {
            return Ok(without_claims(complete(shard, caller, requests, WhenFull::Fail).await?));
        }
        let started = Instant::now();
        self.metrics.histograms.claim_call_waiters.observe(served.claims.len());
        let call = CompleteAndClaimCall::new(shard, caller, requests, &served.queues, &served.claims);
        match call.send().await {
            Ok((ends, claimed)) => {
                self.metrics.histograms.claim_call_tasks.observe(claimed.tasks.len());
                let (completed, served_count) = self.deliver_next(shard, &served, ends, claimed);
                self.metrics.histograms.delivery_duration.observe_durations(started.elapsed(), served_count);
                Ok(completed)
            }
            // Unreadable data of the queues must not cost the completions. The claims go on, and get the error. If this call
            // has taken effect, the completions are repetitions, whose claims find the tasks.
            Err(Error::Unexpected(_)) => Ok(without_claims(complete(shard, caller, requests, WhenFull::Fail).await?)),
            // The completed task keeps the leases for a repetition of its report. They are not released: that would take tasks
            // from a worker whose repetition has just got them.
            Err(error) => Err(error),
        }
    }

    /// Returns the outcomes with the tasks that were claimed, and the number of claims that got any. If a client has
    /// disconnected, dropping its outcome releases them.
    fn deliver_next(
        &self,
        shard: &Shard,
        served: &ServedClaims,
        ends: Vec<LeaseEnd>,
        claimed: ClaimReply,
    ) -> (Vec<Completed>, usize) {
        // Upkeep ends the expired tasks that were passed over.
        let ClaimReply { tasks, has_more, has_passed_expired: _, fronts, unreadable } = claimed;
        shard.unreadable().add_passed_over(shard.index, &served.queues, unreadable);
        self.waiters.apply_fronts(shard.index, served, &fronts);
        let mut tasks_of: Vec<Vec<ClaimedTask>> = served.claims.iter().map(|_| Vec::new()).collect();
        for (claim, task) in tasks {
            if let Some(own) = tasks_of.get_mut(claim) {
                own.push(task);
            }
        }
        let served_count = tasks_of.iter().filter(|tasks| !tasks.is_empty()).count();
        let mut completed = without_claims(ends);
        for ((claim, tasks), reads_all) in served.claims.iter().zip(tasks_of).zip(&served.reads_all) {
            let Some(Completed { end, next }) = completed.get_mut(claim.completion) else { continue };
            if !tasks.is_empty() {
                next.delivery = Delivery::new(tasks, &self.releaser);
            } else if *reads_all && !has_more && matches!(end, LeaseEnd::Done { repeated: false, .. }) {
                next.checked = Some(shard.index);
            }
        }
        (completed, served_count)
    }
}

#[cfg(test)]
mod tests {
    use super::super::wait_queue::tests::{add_waiter, queue};
    use super::*;

    /// A wait queue whose wake-ups arrive.
    fn subscribed(shards: usize) -> WaitQueue {
        let mut wait_queue = WaitQueue::new(shards);
        (0..shards).for_each(|shard| wait_queue.ready_cache.resume(shard));
        wait_queue
    }

    /// Applies a check that found this in the queue.
    fn find(wait_queue: &mut WaitQueue, name: &str, shard: usize, found: Front) {
        wait_queue.ready_cache.add_waiter(&queue(name));
        wait_queue.ready_cache.remove_waiter(&queue(name));
        let sent_at = wait_queue.ready_cache.epoch();
        wait_queue.apply_check(&queue(name), shard, sent_at, found);
    }

    fn may_check(wait_queue: &WaitQueue, names: &[&str], shard: usize, is_long_poll: bool) -> bool {
        let queues: Vec<QueueName> = names.iter().map(|name| queue(name)).collect();
        wait_queue.may_check_first(&queues, shard, is_long_poll)
    }

    #[test]
    fn claim_behind_a_waiter_is_not_served() {
        let mut wait_queue = subscribed(1);
        assert!(may_check(&wait_queue, &["q", "r"], 0, true));
        let (waiter, _reply) = add_waiter(&mut wait_queue, &["r"]);
        assert!(!may_check(&wait_queue, &["q", "r"], 0, true), "an older waiter wants one of the queues");
        wait_queue.begin_call(waiter);
        assert!(!may_check(&wait_queue, &["q", "r"], 0, false), "a call includes it");
        assert!(may_check(&wait_queue, &["q"], 0, true));
        drop(wait_queue.remove(waiter));
        assert!(may_check(&wait_queue, &["q", "r"], 0, true));
        wait_queue.sharing.begin_yield(&queue("r"), 0, std::time::Instant::now() + std::time::Duration::from_secs(600));
        assert!(!may_check(&wait_queue, &["q", "r"], 0, true), "its tasks are left to other servers");
    }

    #[test]
    fn claim_is_served_only_where_it_would_be_checked_first() {
        let mut wait_queue = subscribed(2);
        assert!(!may_check(&wait_queue, &["q"], 0, true), "the other shard may have the better task");
        find(&mut wait_queue, "q", 0, Front::Ready(4));
        assert!(!may_check(&wait_queue, &["q"], 0, true), "nothing is known of the other shard");
        find(&mut wait_queue, "q", 1, Front::Empty);
        assert!(may_check(&wait_queue, &["q"], 0, true) && may_check(&wait_queue, &["q"], 0, false));
        assert!(!may_check(&wait_queue, &["q"], 1, true));
        find(&mut wait_queue, "q", 1, Front::Ready(5));
        assert!(!may_check(&wait_queue, &["q"], 0, true), "the other shard has a higher priority");
        find(&mut wait_queue, "q", 1, Front::Ready(4));
        let chosen = (0..1000).filter(|_| may_check(&wait_queue, &["q"], 0, true)).count();
        assert!((1..1000).contains(&chosen), "each of the best shards has its turns");
        wait_queue.unavailable_shards.insert(1, Error::Unavailable("no answer".into()));
        wait_queue.ready_cache.remove_ready_of(1);
        assert!(may_check(&wait_queue, &["q"], 0, true));
        wait_queue.stop();
        assert!(!may_check(&wait_queue, &["q"], 0, true));
    }

    #[test]
    fn empty_queue_is_checked_only_for_a_claim_that_does_not_wait() {
        let mut wait_queue = subscribed(1);
        find(&mut wait_queue, "q", 0, Front::Empty);
        assert!(!may_check(&wait_queue, &["q"], 0, true));
        assert!(may_check(&wait_queue, &["q"], 0, false));
    }
}
