//! Hands tasks to those who wait, and gathers what concurrent requests want into few calls of Redis.
//!
//! Waiters are kept in memory (`waiters`); one pump per shard (`pump`) looks for them; no connection is held per
//! waiter. Claiming runs in the pump, never in a future that a disconnect can drop: what a waiter that has gone
//! would have got is given back (`delivery`).

mod delivery;
mod ends;
mod events;
mod followed;
mod gather;
mod line;
mod meters;
#[cfg(feature = "pieces")]
#[doc(hidden)]
pub mod pieces;
mod polls;
mod pump;
mod ring;
mod roll;
mod verbs;
mod waiters;

use std::collections::HashSet;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use rand::RngExt as _;
use tokio::sync::Notify;
use tokio::time::{Instant, timeout};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use uuid::Uuid;

use crate::config::Limits;
use crate::domain::digest::Digest;
use crate::domain::id::TaskId;
use crate::domain::limits;
use crate::domain::queue::{QueueName, Settings};
use crate::domain::slot::Slot;
use crate::domain::state::State;
use crate::domain::task::NewTask;
use crate::spans::{End, Spans};
use crate::store::ops::cancel::Cancelled;
use crate::store::ops::complete::Completion;
use crate::store::ops::fail::Failure;
use crate::store::ops::heartbeat::{Beat, Prolonged};
use crate::store::ops::release::Release;
use crate::store::ops::remember::{Note, Remembered};
use crate::store::ops::remove::{Reason, Removed};
use crate::store::ops::retry::Revived;
use crate::store::ops::submit::Submitted;
use crate::store::ops::{self, Ended};
use crate::store::signal::Signal;
use crate::store::{Caller, Error, Shard, Store, views};

pub use delivery::Delivery;
pub use events::{Listener, Mark};
pub use meters::{Meters, Signals};
pub use polls::Polls;
pub use ring::{Event, Told};
pub use waiters::Request;

use delivery::GiveBack;
use ends::Ends;
use events::Events;
use followed::Follow;
use gather::{Gather, in_time};
use roll::Roll;
use waiters::Waiters;

/// What comes of a call, or what the store has against it.
type Result<T, E = Error> = std::result::Result<T, E>;

/// Calls of one purge, each of up to 500 tasks.
const PURGE_CALLS: u32 = 20;

/// The engine of claims, and the gate through which every request that changes something goes.
#[derive(Debug)]
pub struct Dispatch {
    store: Store,
    waiters: Arc<Waiters>,
    roll: Arc<Roll>,
    ends: Ends,
    polls: Arc<Polls>,
    follow: Follow,
    meters: Arc<Meters>,
    events: Arc<Events>,
    /// Per shard: signals may have been missed.
    missed: Vec<Notify>,
    submits: Gather<verbs::Submit>,
    completes: Gather<verbs::Complete>,
    fails: Gather<verbs::Fail>,
    heartbeats: Gather<verbs::Heartbeat>,
    releases: Gather<verbs::Release>,
    cancels: Gather<verbs::Cancel>,
    retries: Gather<verbs::Retry>,
    deletes: Gather<verbs::Delete>,
    notes: Gather<verbs::Remember>,
    watches: Gather<verbs::Watch>,
}

/// Why a request does not get what it waits for.
#[derive(Clone, Debug)]
pub enum Refusal {
    /// As many wait as may.
    Crowded,
    /// The store.
    Store(Error),
}

impl From<Error> for Refusal {
    fn from(error: Error) -> Self {
        Refusal::Store(error)
    }
}

impl Dispatch {
    /// Starts a pump for each shard, and the sweep: every `sweep`, give or take a third, what hints may have missed is
    /// looked for. At most as many requests wait, and as many events are kept, as `limits` says. What is seen of tasks that
    /// are followed goes to `spans`. All of it ends after `stop`, once what was begun is done.
    pub fn start(
        store: Store,
        sweep: Duration,
        limits: &Limits,
        spans: Spans,
        tasks: &TaskTracker,
        stop: &CancellationToken,
    ) -> Arc<Self> {
        let waiters = Arc::new(Waiters::new(store.shards().len()));
        let meters = Arc::new(Meters::default());
        let give_back = GiveBack::new(&store, &meters, tasks);
        for shard in store.shards() {
            let (waiters, meters) = (waiters.clone(), meters.clone());
            tasks.spawn(pump::run(shard.clone(), waiters, give_back.clone(), meters, stop.clone()));
        }
        let roll: Arc<Roll> = Arc::default();
        tasks.spawn(roll.clone().keep(store.home().clone(), waiters.clone(), stop.clone()));
        let dispatch = Arc::new(Dispatch {
            waiters,
            roll,
            ends: Ends::default(),
            polls: Polls::new(limits.waiting_polls),
            follow: Follow::new(spans, &store),
            meters,
            events: Events::new(&store, limits.events, stop),
            missed: store.shards().iter().map(|_| Notify::new()).collect(),
            submits: Gather::new(&store, tasks),
            completes: Gather::new(&store, tasks),
            fails: Gather::new(&store, tasks),
            heartbeats: Gather::new(&store, tasks),
            releases: Gather::new(&store, tasks),
            cancels: Gather::new(&store, tasks),
            retries: Gather::new(&store, tasks),
            deletes: Gather::new(&store, tasks),
            notes: Gather::new(&store, tasks),
            watches: Gather::new(&store, tasks),
            store,
        });
        for shard in dispatch.store.shards() {
            tasks.spawn(dispatch.clone().sweep(shard.clone(), sweep, stop.clone()));
        }
        tasks.spawn(dispatch.clone().dismiss(stop.clone()));
        tasks.spawn(dispatch.events.clone().run());
        dispatch
    }

    /// Looks in the shard where there is something to claim for those who wait, again and again, whatever becomes of
    /// other shards.
    async fn sweep(self: Arc<Self>, shard: Shard, every: Duration, stop: CancellationToken) {
        let Some(missed) = self.missed.get(shard.index) else { return };
        let sweeps = async {
            loop {
                let pause = every.mul_f64(rand::rng().random_range(0.67..1.33));
                // Woken or not, it is time to look.
                let _ = timeout(pause, missed.notified()).await;
                let queues = self.waiters.queues();
                if !queues.is_empty() {
                    self.meters.sweeps.one();
                    match views::queues::ready(&shard, &queues).await {
                        Ok(ready) => self.waiters.swept(shard.index, &queues, ready),
                        Err(error) => tracing::debug!(%error, shard = shard.index, "a sweep failed"),
                    }
                }
                self.ends.wake_in(&self.store, shard.index);
            }
        };
        tokio::select! {
            () = sweeps => {}
            () = stop.cancelled() => {}
        }
    }

    /// At the end, all who wait are answered.
    async fn dismiss(self: Arc<Self>, stop: CancellationToken) {
        stop.cancelled().await;
        self.waiters.dismiss();
        self.ends.wake_all();
    }

    /// Takes note of what a script said.
    pub fn hear(&self, signal: &Signal) {
        self.meters.heard(signal);
        match signal {
            Signal::Ready { shard, priority, queue } => self.waiters.hint(*shard, queue, *priority),
            Signal::Ended(id) => self.ends.wake(id),
            Signal::Due { .. } => {}
            Signal::Missed => self.missed.iter().for_each(Notify::notify_one),
        }
    }

    /// Notes that a worker claims, from where, and how many tasks it works at at once.
    pub fn claims(&self, request: &Request, address: IpAddr, concurrency: u32) {
        self.roll.claims(&request.worker, address, concurrency, &request.queues, Instant::now());
    }

    /// Notes that a worker has sent a heartbeat.
    pub fn beats(&self, worker: &str, address: IpAddr) {
        self.roll.beats(worker, address, Instant::now());
    }

    /// Ready tasks for the request, or none once `wait` has passed. What the delivery holds goes back if it is dropped
    /// before it is taken. When as many wait as may, there is still what is ready at once.
    pub async fn claim(&self, request: Request, wait: Duration) -> Result<Delivery, Refusal> {
        let mut delivery = self.wait_for(request, wait).await?;
        delivery.end_with(self.follow.waits(delivery.tasks()).await);
        Ok(delivery)
    }

    async fn wait_for(&self, request: Request, wait: Duration) -> Result<Delivery, Refusal> {
        if wait.is_zero() {
            return Ok(in_time(self.waiters.register(request, false).answer()).await?);
        }
        let Some(_place) = self.polls.enter() else {
            let delivery = in_time(self.waiters.register(request, false).answer()).await?;
            return match delivery.tasks().is_empty() {
                false => Ok(delivery),
                true => Err(self.crowded()),
            };
        };
        let mut waiter = self.waiters.register(request, true);
        Ok(match timeout(wait, waiter.answer()).await {
            Ok(answer) => answer?,
            // Not before a call that is looking for it has come back.
            Err(_) => in_time(waiter.leave()).await?,
        })
    }

    /// The same for a request that may be a repetition: what is leased under its claim id already is the answer.
    pub async fn claim_again(&self, request: Request, wait: Duration) -> Result<Delivery, Refusal> {
        let Some(claim) = request.claim else { return self.claim(request, wait).await };
        let before = views::claims::claimed(&self.store, &claim).await?;
        if !before.is_empty() {
            return Ok(Delivery::again(before));
        }
        let delivery = self.claim(request, wait).await?;
        if !delivery.tasks().is_empty() {
            return Ok(delivery);
        }
        // The earlier one may have been on its way still.
        Ok(Delivery::again(views::claims::claimed(&self.store, &claim).await?))
    }

    fn crowded(&self) -> Refusal {
        self.polls.refuse();
        Refusal::Crowded
    }

    /// Those who wait, counted.
    pub fn polls(&self) -> &Polls {
        &self.polls
    }

    /// Stores tasks, in their order.
    pub async fn submit(&self, tasks: Vec<NewTask>) -> Vec<Result<Submitted>> {
        let followed = self.follow.submits(&tasks);
        let outcomes = self.submits.send_all(tasks.into_iter().map(|task| (task.id.slot(), task)).collect()).await;
        self.follow.submitted(followed, &outcomes);
        outcomes
    }

    /// Ends leases and their tasks, in their order.
    pub async fn complete(&self, completions: Vec<Completion>) -> Vec<Result<Ended>> {
        let endings = self.follow.endings(completions.iter().map(|done| &done.held)).await;
        let placed = completions.into_iter().map(|done| (done.held.id.slot(), done)).collect();
        let outcomes = self.completes.send_all(placed).await;
        self.follow.ended(endings, End::Completed, &outcomes);
        outcomes
    }

    /// Ends a lease badly.
    pub async fn fail(&self, failure: Failure) -> Result<Ended> {
        let endings = self.follow.endings([&failure.held].into_iter()).await;
        let outcome = self.fails.send(failure.held.id.slot(), failure).await;
        self.follow.ended(endings, End::Failed, [&outcome]);
        outcome
    }

    /// Prolongs leases.
    pub async fn heartbeat(&self, beats: Vec<Beat>) -> Vec<Result<Prolonged>> {
        self.heartbeats.send_all(beats.into_iter().map(|beat| (beat.held.id.slot(), beat)).collect()).await
    }

    /// Gives a task back.
    pub async fn release(&self, release: Release) -> Result<Ended> {
        let endings = self.follow.endings([&release.held].into_iter()).await;
        let outcome = self.releases.send(release.held.id.slot(), release).await;
        self.follow.ended(endings, End::Released, [&outcome]);
        outcome
    }

    /// Calls a task off.
    pub async fn cancel(&self, id: TaskId) -> Result<Cancelled> {
        self.cancels.send(id.slot(), id).await
    }

    /// Has an ended task run again.
    pub async fn retry(&self, id: TaskId) -> Result<Revived> {
        self.retries.send(id.slot(), id).await
    }

    /// Forgets an ended task.
    pub async fn delete(&self, id: TaskId) -> Result<Removed> {
        self.deletes.send(id.slot(), id).await
    }

    /// Opens or closes records of Idempotency-Keys, in their order; each lies in the key's own shard.
    pub async fn remember(&self, notes: Vec<Note>) -> Vec<Result<Remembered>> {
        let placed = notes.into_iter().map(|note| (verbs::slot_of_record(&note.key), note));
        self.notes.send_all(placed.collect()).await
    }

    /// Returns when the task has ended or is gone, at the latest after `wait`.
    pub async fn ended(&self, id: TaskId, wait: Duration) -> Result<(), Refusal> {
        let Some(_place) = self.polls.enter() else {
            // One that has ended is not waited for.
            let state = self.watches.send(id.slot(), id).await?;
            return if state.is_none_or(State::has_ended) { Ok(()) } else { Err(self.crowded()) };
        };
        let wakeup = self.ends.register(id);
        let waited = timeout(wait, async {
            loop {
                let news = wakeup.news();
                let state: Option<State> = self.watches.send(id.slot(), id).await?;
                if state.is_none_or(State::has_ended) {
                    return Ok(());
                }
                if self.waiters.are_dismissed() {
                    return Ok(());
                }
                news.await;
            }
        });
        waited.await.unwrap_or(Ok(()))
    }

    /// Tells what becomes of tasks in `queues` (none: in all), from now on or from `mark` on.
    pub async fn listen(&self, queues: Vec<QueueName>, mark: Option<Mark>) -> Result<Listener, Refusal> {
        let place = self.polls.enter().ok_or_else(|| self.crowded())?;
        Ok(self.events.listen(place, queues, mark).await?)
    }

    /// Does a write that changes no task, as proof that writes work, and sees that no shard is left out by claims.
    pub async fn probe(&self) -> Result<()> {
        if let Some(error) = self.waiters.down() {
            return Err(error);
        }
        for shard in self.store.shards() {
            let (first, _) = self.store.layout().range(shard.index);
            if let Some(slot) = Slot::new(first) {
                self.watches.send(slot, TaskId::new(Uuid::nil(), slot)).await?;
            }
        }
        Ok(())
    }

    /// Sets a queue's settings, master copy first. Returns when all shards have theirs; if it does not return,
    /// upkeep brings the copies up.
    pub async fn configure(&self, queue: &QueueName, settings: Settings) -> Result<()> {
        in_time(async {
            let mut caller = Caller::new();
            let version = ops::settings::set(&self.store, &mut caller, queue, &settings).await?;
            let mut outcome = Ok(());
            for shard in self.store.shards() {
                let configured = ops::configure::configure(shard, &mut caller, queue, version, &settings).await;
                outcome = outcome.and(configured.map(drop));
            }
            outcome
        })
        .await
    }

    /// Forgets the queue's tasks in these states, at most 10,000: how many, and whether there may be more.
    pub async fn purge(&self, queue: &QueueName, states: &[State]) -> Result<(u64, bool)> {
        let mut caller = Caller::new();
        let reason = Reason::Purged(states.to_vec());
        let (mut gone, mut calls) = (0, 0);
        for shard in self.store.shards() {
            for state in states {
                loop {
                    let mut ids = views::queues::purgeable(shard, queue, *state, limits::CALL_ITEMS).await?;
                    // One that moved while its queue was read may stand in it twice.
                    let mut seen = HashSet::new();
                    ids.retain(|id| seen.insert(*id));
                    if ids.is_empty() {
                        break;
                    }
                    if calls == PURGE_CALLS {
                        return Ok((gone, true));
                    }
                    calls += 1;
                    let removed = ops::remove::remove(shard, &mut caller, &reason, &ids).await?;
                    let now_gone = removed.iter().filter(|removed| **removed == Removed::Gone).count();
                    gone += now_gone as u64;
                    if now_gone == 0 {
                        break;
                    }
                }
            }
        }
        Ok((gone, false))
    }

    /// The store, for reading.
    pub fn store(&self) -> &Store {
        &self.store
    }

    /// The shard that holds the task.
    pub fn shard_of(&self, id: &TaskId) -> &Shard {
        self.store.shard_of_id(id)
    }

    /// The digest under which a claim id, a caller's or a completed lease's, is kept.
    pub fn claim_digest(kind: &str, id: &[u8]) -> Digest {
        Digest::of(&[b"claim", kind.as_bytes(), id])
    }
}
