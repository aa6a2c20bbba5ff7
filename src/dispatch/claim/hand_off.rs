//! Hand-offs: a submit call hands tasks over to resting waiters, which takes no wake-up and no claim call.
//!
//! The submit script decides: a task goes to a waiter only if it would be the only ready task of its queue in the shard.
//! After an error it is not known which tasks were handed over. The waiters then rest again, and the call is resolved: its
//! tasks are released. So a waiter never gets a task of a submit that was answered with an error.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::delivery::{Delivery, UndeliveredReleaser};
use super::offers::OfferedWaiters;
use super::sharing::YIELD_TIME;
use super::waiters::Waiters;
use crate::dispatch::batch::{BatchedOp, Sharing};
use crate::dispatch::metrics::Metrics;
use crate::domain::state::State;
use crate::domain::task::{ClaimedTask, NewTask};
use crate::store::ops::resolve_hand_offs::resolve_hand_offs;
use crate::store::ops::submit::{HandOff, SubmitReply, Submitted, submit};
use crate::store::{Caller, Result, Shard};

/// Pause before a call that resolves another is sent again.
const RETRY_DELAY: Duration = Duration::from_millis(200);

/// A submitted task. It comes along, so that a handler can return the task without having kept a copy.
#[derive(Debug)]
pub(super) struct Stored {
    pub(super) task: NewTask,
    pub(super) outcome: Submitted,
    /// Whether a waiter got it in the same call.
    pub(super) is_handed_over: bool,
}

/// Stores a task.
#[derive(Debug)]
pub(super) struct Submit;

impl BatchedOp for Submit {
    const SHARING: Sharing = Sharing::DistinctKeys;
    type Item = NewTask;
    type Reply = Stored;
    type Context = Arc<HandOffs>;

    async fn call(
        shard: &Shard,
        hand_offs: &Arc<HandOffs>,
        caller: &mut Caller,
        tasks: &mut Vec<NewTask>,
    ) -> Result<Vec<Stored>> {
        hand_offs.submit(shard, caller, tasks).await
    }
}

/// Makes calls that hand tasks over: submits with offers, and completions with claims.
#[derive(Debug)]
pub(super) struct HandOffs {
    pub(super) waiters: Arc<Waiters>,
    pub(super) releaser: Arc<UndeliveredReleaser>,
    pub(super) metrics: Arc<Metrics>,
    tasks: TaskTracker,
    stop: CancellationToken,
}

impl HandOffs {
    pub(super) fn new(
        waiters: &Arc<Waiters>,
        releaser: &Arc<UndeliveredReleaser>,
        metrics: &Arc<Metrics>,
        tasks: &TaskTracker,
        stop: &CancellationToken,
    ) -> Arc<Self> {
        Arc::new(HandOffs {
            waiters: waiters.clone(),
            releaser: releaser.clone(),
            metrics: metrics.clone(),
            tasks: tasks.clone(),
            stop: stop.clone(),
        })
    }

    /// Stores the tasks, and delivers those that were handed over. After an error the tasks stay in `tasks`.
    async fn submit(&self, shard: &Shard, caller: &mut Caller, tasks: &mut Vec<NewTask>) -> Result<Vec<Stored>> {
        let offered = match shard.breaker.check() {
            Ok(()) => self.waiters.take_offers(shard.index, tasks),
            Err(_) => OfferedWaiters::default(),
        };
        if !offered.yielded.is_empty() {
            self.claim_after_yield(shard.index);
        }
        let started = Instant::now();
        let reply = submit(shard, caller, tasks, &offered.offers).await;
        if reply.is_err() {
            self.waiters.check_yielded(&offered, shard.index);
        }
        if offered.ids.is_empty() {
            return Ok(stored(tasks, reply?));
        }
        match &reply {
            Ok(reply) => {
                let served_count = self.deliver(shard.index, &offered, tasks, reply);
                self.metrics.counters.hand_offs.add(reply.hand_offs.len() as u64);
                self.metrics.histograms.delivery_duration.observe_durations(started.elapsed(), served_count);
            }
            Err(_) => self.resolve(shard.clone(), std::mem::take(caller)),
        }
        self.waiters.return_offers(&offered);
        Ok(stored(tasks, reply?))
    }

    /// Delivers the tasks that were handed over. If a client has disconnected, dropping the delivery releases them. Returns
    /// the number of waiters served.
    fn deliver(&self, shard: usize, offered: &OfferedWaiters, tasks: &[NewTask], reply: &SubmitReply) -> usize {
        let mut claimed: Vec<Vec<ClaimedTask>> = offered.ids.iter().map(|_| Vec::new()).collect();
        let mut emptied = BTreeSet::new();
        for hand_off in &reply.hand_offs {
            emptied.extend(tasks.get(hand_off.task).map(|task| &task.queue));
            let task = tasks.get(hand_off.task).zip(reply.outcomes.get(hand_off.task));
            match (claimed.get_mut(hand_off.request), task.and_then(|(task, outcome)| leased(task, *outcome, hand_off)))
            {
                (Some(own), Some(task)) => own.push(task),
                _ => tracing::error!(task = %hand_off.id, "a submit handed over what it was not given"),
            }
        }
        for (index, (task, outcome)) in tasks.iter().zip(&reply.outcomes).enumerate() {
            let is_ready = matches!(outcome, Submitted::Created { state: State::Ready, .. });
            if is_ready && reply.hand_offs.iter().all(|hand_off| hand_off.task != index) {
                emptied.remove(&task.queue);
            }
        }
        emptied.into_iter().for_each(|queue| self.waiters.record_empty(offered, queue, shard));
        let mut served_count = 0;
        for (id, tasks) in offered.ids.iter().zip(claimed).filter(|(_, tasks)| !tasks.is_empty()) {
            served_count += 1;
            self.waiters.deliver(*id, Delivery::new(tasks, &self.releaser));
        }
        served_count
    }

    /// Has the own waiters claim the tasks that no other server takes.
    fn claim_after_yield(&self, shard: usize) {
        let waiters = self.waiters.clone();
        self.tasks.spawn(async move {
            tokio::time::sleep(YIELD_TIME).await;
            waiters.trigger([shard]);
        });
    }

    /// Releases the tasks that the last call of `caller` has handed over, once Redis tells which. The leases of a call that
    /// is not resolved before the server stops expire.
    pub(super) fn resolve(&self, shard: Shard, caller: Caller) {
        let (releaser, stop) = (self.releaser.clone(), self.stop.clone());
        self.tasks.spawn(async move {
            loop {
                match resolve_hand_offs(&shard, &caller).await {
                    Ok(leases) => return releaser.release_all(leases),
                    Err(error) if error.is_outage() => {}
                    Err(error) => {
                        tracing::error!(%error, "resolving a call of unknown outcome failed");
                        return;
                    }
                }
                tokio::select! {
                    () = tokio::time::sleep(RETRY_DELAY) => {}
                    () = stop.cancelled() => return,
                }
            }
        });
    }
}

/// Takes the tasks, with their outcomes.
fn stored(tasks: &mut Vec<NewTask>, reply: SubmitReply) -> Vec<Stored> {
    let SubmitReply { outcomes, hand_offs } = reply;
    let outcomes = tasks.drain(..).zip(outcomes);
    let mut stored: Vec<Stored> =
        outcomes.map(|(task, outcome)| Stored { task, outcome, is_handed_over: false }).collect();
    for hand_off in hand_offs {
        stored.get_mut(hand_off.task).into_iter().for_each(|stored| stored.is_handed_over = true);
    }
    stored
}

/// The task as its worker gets it.
fn leased(task: &NewTask, outcome: Submitted, hand_off: &HandOff) -> Option<ClaimedTask> {
    let Submitted::Created { at, expires_at, .. } = outcome else { return None };
    Some(ClaimedTask {
        id: task.id,
        queue: task.queue.clone(),
        slot: task.slot,
        priority: task.priority,
        payload: task.payload.clone(),
        attributes: task.attributes.clone(),
        attempt: 1,
        max_attempts: task.max_attempts,
        progress: None,
        created_at: at,
        expires_at,
        lease: hand_off.lease,
        lease_until: hand_off.lease_until,
    })
}
