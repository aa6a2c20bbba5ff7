//! Generates traces: the possible next steps for a state of the model. Most requests name existing tasks with a valid
//! proof; the others have a stale, foreign or missing proof, or repeat an earlier request.

use std::fmt;

use proptest::collection::vec;
use proptest::option::weighted;
use proptest::prelude::*;
use proptest::sample::{select, subsequence};
use proptest::strategy::Union;
use proptest_state_machine::ReferenceStateMachine;
use slotwheel::domain::state::State;

use super::steps::{Call, ClaimSpec, Fault, Held, Mode, Name, Proof, QUEUES, Retry, Spec, Start, Step, Target};
use super::{DUPLICATE_DELAY, Model, Reply, Task};

/// A point in time at which a transition happened without a request.
#[derive(Clone)]
pub(super) struct Stop {
    pub(super) model: Model,
    /// Leases that expired since the previous stop.
    pub(super) lost: Vec<Held>,
}

/// The model, and the expected effect of the last step.
#[derive(Clone, Default)]
pub(super) struct Trace {
    pub(super) model: Model,
    /// For each request the expected reply and the model after it.
    pub(super) replies: Vec<(Model, Reply)>,
    pub(super) stops: Vec<Stop>,
    next: u16,
    sent: Vec<Call>,
}

/// For the report of a failed run, which lists the steps.
impl fmt::Debug for Trace {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an empty store")
    }
}

impl ReferenceStateMachine for Trace {
    type State = Trace;
    type Transition = Step;

    fn init_state() -> BoxedStrategy<Trace> {
        Just(Trace::default()).boxed()
    }

    fn transitions(trace: &Trace) -> BoxedStrategy<Step> {
        let mut calls = fresh(trace);
        if !trace.sent.is_empty() {
            let next = trace.next;
            let repeated = select(trace.sent.clone()).prop_map(move |call| renamed(call, next));
            calls.push((8, repeated.boxed()));
        }
        let fault = prop_oneof![6 => Just(Fault::Nothing), 2 => Just(Fault::Twice), 2 => Just(Fault::Lost)];
        let call = Union::new_weighted(calls);
        let send = (call, 0..2usize, fault).prop_map(|(call, server, fault)| Step::Send { call, server, fault });
        prop_oneof![
            60 => send,
            10 => select(vec![1i64, 1, 1, 1, 2, 2, 3, 3, 12, 25, 24 * 14]).prop_map(Step::Advance),
            3 => (1..4i64).prop_map(Step::Outage),
            2 => Just(Step::FlushScripts),
            1 => Just(Step::RestartRedis),
        ]
        .boxed()
    }

    fn preconditions(trace: &Trace, step: &Step) -> bool {
        let Step::Send { call, .. } = step else { return true };
        let model = &trace.model;
        let made = |name: &Name| model.made.contains(name);
        let names = call.new_names();
        // Upkeep makes the successor of a completed task ready, before or after the claim that follows.
        let successor = |Held(target, _): &Held| match target {
            Target::Task(name) => model.successor(*name).is_some(),
            Target::NoTask => false,
        };
        let claims_next = matches!(call, Call::Complete(_, _, Some(_)) | Call::CompleteBatch(_, Some(_)));
        if claims_next && call.held_leases().iter().any(successor) {
            return false;
        }
        let would_wait = match call {
            Call::Meet(ask, ..) => ask.queues.iter().all(|queue| !has_claimable(model, queue)),
            _ => true,
        };
        let fresh = names.first().is_none_or(|first| model.made.iter().all(|name| name < first));
        fresh
            && would_wait
            && call.held_leases().iter().all(|Held(target, proof)| {
                let is_there = match target {
                    Target::Task(name) => made(name),
                    Target::NoTask => true,
                };
                let was_given = match proof {
                    Proof::Lease(name, nth) => model.given.contains(&(*name, *nth)),
                    Proof::Garbage | Proof::Malformed => true,
                };
                is_there && was_given
            })
    }

    fn apply(mut trace: Trace, step: &Step) -> Trace {
        trace.model.begin();
        (trace.replies, trace.stops) = (Vec::new(), Vec::new());
        match step {
            Step::Send { call, fault, .. } => {
                trace.arrive(call);
                if *fault == Fault::Twice {
                    trace.model.now += DUPLICATE_DELAY;
                    trace.arrive(&call.again());
                }
                trace.sent.push(call.clone());
            }
            Step::Advance(hours) | Step::Outage(hours) => {
                if matches!(step, Step::Outage(_)) {
                    trace.stops.push(Stop { model: trace.model.clone(), lost: Vec::new() });
                    trace.model.suffer(*hours);
                }
                let target = trace.model.after(*hours);
                loop {
                    let before = trace.model.clone();
                    let more = trace.model.pass(target);
                    let live = before.tasks.values().filter(|task| task.lease.is_some());
                    let lost =
                        live.filter(|task| trace.model.tasks.get(&task.name).is_none_or(|after| after.lease.is_none()));
                    let lost = lost.map(|task| Held(Target::Task(task.name), Proof::Lease(task.name, task.acquired)));
                    trace.stops.push(Stop { model: trace.model.clone(), lost: lost.collect() });
                    if !more {
                        break;
                    }
                }
            }
            Step::FlushScripts | Step::RestartRedis => {}
        }
        trace
    }
}

impl Trace {
    fn arrive(&mut self, call: &Call) {
        let reply = self.model.call(call);
        self.replies.push((self.model.clone(), reply));
        let names = call.new_names();
        // Leaves a name for the duplicate of each.
        self.next = names.iter().map(|name| name.0 + 2).fold(self.next, u16::max);
    }
}

/// The same request, with names of its own for what it makes.
fn renamed(call: Call, next: u16) -> Call {
    let name = |place: usize| Name(next + 2 * place as u16);
    match call {
        Call::Submit(_, spec) => Call::Submit(name(0), spec),
        Call::SubmitBatch(tasks) => {
            Call::SubmitBatch(tasks.into_iter().enumerate().map(|(place, (_, spec))| (name(place), spec)).collect())
        }
        Call::Meet(ask, _, spec) => Call::Meet(ask, name(0), spec),
        other => other,
    }
}

fn has_claimable(model: &Model, queue: &str) -> bool {
    model.queues.get(queue).is_some_and(|queue| !queue.paused && !queue.wheel.is_empty())
}

/// A submit while a claim waits.
fn meeting(model: &Model, next: u16) -> Option<BoxedStrategy<Call>> {
    let idle: Vec<&str> = QUEUES.into_iter().filter(|queue| !has_claimable(model, queue)).collect();
    let first = vec![*idle.first()?];
    let meeting = (select(vec![first, idle]), ask(), spec(false)).prop_map(move |(queues, ask, spec)| {
        Call::Meet(ClaimSpec { queues, claim_id: None, ..ask }, Name(next), spec.into())
    });
    Some(meeting.boxed())
}

/// Requests that are no repetition, by weight.
fn fresh(trace: &Trace) -> Vec<(u32, BoxedStrategy<Call>)> {
    let (model, next) = (&trace.model, trace.next);
    let queue = || select(QUEUES.to_vec());
    let batch = vec(spec(true), 1..5).prop_map(move |specs| {
        renamed(Call::SubmitBatch(specs.into_iter().map(|spec| (Name(0), spec)).collect()), next)
    });
    let retry = prop_oneof![Just(Retry::AsSubmitted), Just(Retry::Never), (0..3i64).prop_map(Retry::In)];
    let purged = vec![State::Scheduled, State::Ready, State::Completed, State::Dead, State::Cancelled, State::Expired];
    let beat = (held(model), weighted(0.5, 1..4i64), weighted(0.5, 0..4u8));
    let done = (held(model), 0..4u8);
    let delay = select(vec![0i64, 0, 0, 1, 2]);
    let revoked = (target(model, |task| task.lease.is_some()), delay.clone(), weighted(0.3, 1..3u32));
    let then = || weighted(0.5, ask());
    let retryable = |task: &Task| matches!(task.state, State::Dead | State::Cancelled | State::Expired);
    // Requests that can succeed are more frequent.
    let leased = if model.tasks.values().any(|task| task.lease.is_some()) { 5 } else { 1 };
    let ready = if model.queues.values().any(|queue| !queue.paused && !queue.wheel.is_empty()) { 3 } else { 1 };
    let paused = if model.queues.values().any(|queue| queue.paused) { 4 } else { 1 };
    let revivable = if model.tasks.values().any(retryable) { 3 } else { 1 };
    let mut calls = vec![
        (12, spec(false).prop_map(move |spec| Call::Submit(Name(next), spec)).boxed()),
        (6, batch.boxed()),
        (5 * ready, ask().prop_map(Call::Claim).boxed()),
        (
            2 * leased,
            (done.clone(), then()).prop_map(|((held, result), then)| Call::Complete(held, result, then)).boxed(),
        ),
        (leased, (vec(done, 1..4), then()).prop_map(|(items, then)| Call::CompleteBatch(items, then)).boxed()),
        (2 * leased, (held(model), retry.clone()).prop_map(|(held, retry)| Call::Fail(held, retry)).boxed()),
        (2 * leased, (held(model), delay.clone()).prop_map(|(held, delay)| Call::Release(held, delay)).boxed()),
        (leased, vec((held(model), retry), 1..4).prop_map(Call::FailBatch).boxed()),
        (leased, vec((held(model), delay.clone()), 1..4).prop_map(Call::ReleaseBatch).boxed()),
        (leased, revoked.prop_map(|(target, delay, nth)| Call::Revoke(target, delay, nth)).boxed()),
        (2, target(model, Task::is_waiting).prop_map(Call::Run).boxed()),
        (2 * leased, vec(beat, 1..3).prop_map(Call::Heartbeat).boxed()),
        (leased, target(model, |task| task.lease.is_some()).prop_map(Call::Cancel).boxed()),
        (2, target(model, Task::is_waiting).prop_map(Call::Cancel).boxed()),
        (2 * revivable, target(model, retryable).prop_map(Call::Retry).boxed()),
        (2, target(model, |task| task.state.has_ended()).prop_map(Call::Delete).boxed()),
        (1, queue().prop_map(Call::Pause).boxed()),
        (paused, queue().prop_map(Call::Resume).boxed()),
        (2, queue().prop_map(Call::Remove).boxed()),
        (2, (queue(), subsequence(purged, 1..4)).prop_map(|(queue, states)| Call::Purge(queue, states)).boxed()),
    ];
    calls.extend(meeting(model, next).map(|meeting| (8, meeting)));
    calls
}

/// A task; as an item of a batch it replaces no other: what of a batch goes into one script is not said, and a slot that
/// is emptied and filled in one keeps its turn.
fn spec(in_batch: bool) -> BoxedStrategy<Spec> {
    let modes = if in_batch {
        vec![Mode::Keep]
    } else {
        vec![Mode::Keep, Mode::Replace, Mode::Debounce, Mode::Debounce, Mode::After, Mode::After]
    };
    let start = prop_oneof![
        20 => Just(Start::In(0)),
        5 => (1..4i64).prop_map(Start::In),
        1 => Just(Start::Past),
        1 => Just(Start::TooFar),
    ];
    let dedupe = (select(vec!["x", "x", "x", "x", "y"]), select(modes), weighted(0.3, 1..4i64));
    let place = (
        select(vec!["q", "q", "q", "r"]),
        // Three share a slot.
        weighted(0.7, select(vec!["{s}a", "{s}b", "{s}c", "d"])),
        select(vec![4u8, 4, 4, 4, 7]),
        0..4u8,
    );
    let life = (start, weighted(0.15, 1..5i64), 1..4u32, vec(0..3i64, 1..3), select(vec![0i64, 1, 2]));
    let life = (life, weighted(0.4, 0..3u32));
    (place, life, weighted(0.2, select(vec![1i64, 48])), weighted(0.45, dedupe), weighted(0.25, select(vec!["i", "j"])))
        .prop_map(|((queue, key, priority, payload), life, retain, dedupe, once)| {
            let ((start, expires_in, max_attempts, backoff, max_run), max_acquired) = life;
            // Dedupe keys are used with the same routing key, so that they collide.
            let key = key.filter(|key| dedupe.is_none() || *key == "{s}a");
            Spec {
                queue,
                key,
                priority,
                payload,
                start,
                expires_in,
                max_attempts,
                max_acquired,
                backoff,
                max_run,
                retain,
                dedupe,
                once,
            }
        })
        .boxed()
}

fn ask() -> BoxedStrategy<ClaimSpec> {
    let queues = select(vec![vec!["q"], vec!["q"], vec!["r"], vec!["q", "r"], vec!["r", "q"]]);
    let id = weighted(0.2, select(vec!["c", "d"]));
    (queues, select(vec![1usize, 1, 1, 2, 3]), 1..4i64, select(vec!["ann", "bob"]), id)
        .prop_map(|(queues, max, lease, worker, claim_id)| ClaimSpec { queues, max, lease, worker, claim_id })
        .boxed()
}

/// Mostly a task of a kind; else any that is there, one that is gone, or none.
fn target(model: &Model, kind: impl Fn(&Task) -> bool) -> BoxedStrategy<Target> {
    let named = |names: Vec<Name>| names.into_iter().rev().map(Target::Task).collect::<Vec<_>>();
    let of_kind = named(model.tasks.values().filter(|task| kind(task)).map(|task| task.name).collect());
    let there = named(model.tasks.keys().copied().collect());
    let made = named(model.made.iter().copied().collect());
    let mut all = vec![(1, Just(Target::NoTask).boxed())];
    for (weight, targets) in [(14, of_kind), (4, there), (1, made)] {
        if !targets.is_empty() {
            all.push((weight, select(targets).boxed()));
        }
    }
    Union::new_weighted(all).boxed()
}

/// Mostly a live lease; else an old one, any lease shown for any task, or none.
fn held(model: &Model) -> BoxedStrategy<Held> {
    let any = || target(model, |task| task.lease.is_some());
    let own = |(name, nth): &(Name, u32)| Held(Target::Task(*name), Proof::Lease(*name, *nth));
    let live = model.tasks.values().filter(|task| task.lease.is_some());
    let live: Vec<Held> = live.map(|task| own(&(task.name, task.acquired))).collect();
    let stale = model.given.iter().rev().filter(|(name, _)| model.tasks.contains_key(name));
    let stale: Vec<Held> = stale.map(own).collect();
    let given: Vec<Proof> = model.given.iter().rev().map(|(name, nth)| Proof::Lease(*name, *nth)).collect();
    let nothing = prop_oneof![Just(Proof::Garbage), Just(Proof::Malformed)];
    let mut all = vec![(1, (any(), nothing).prop_map(|(target, proof)| Held(target, proof)).boxed())];
    for (weight, held_leases) in [(14, live), (4, stale)] {
        if !held_leases.is_empty() {
            all.push((weight, select(held_leases).boxed()));
        }
    }
    if !given.is_empty() {
        all.push((2, (any(), select(given)).prop_map(|(target, proof)| Held(target, proof)).boxed()));
    }
    Union::new_weighted(all).boxed()
}
