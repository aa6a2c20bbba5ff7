//! Traces: what may come next, given what the model holds. Most requests are about what is there, with the proof that
//! holds; the others show a stale, a foreign or no proof, or are an earlier one once more.

use std::fmt;

use proptest::collection::vec;
use proptest::option::weighted;
use proptest::prelude::*;
use proptest::sample::{select, subsequence};
use proptest_state_machine::ReferenceStateMachine;
use slotwheel::domain::state::State;

use super::calls::{Ask, Call, Fault, Held, Mode, Name, Proof, QUEUES, Retry, Spec, Start, Step, Target};
use super::{AGAIN, Model, Reply};

/// Time stops here: something has happened by itself.
#[derive(Clone)]
pub(super) struct Stop {
    pub(super) model: Model,
    /// Leases that have run out since the stop before.
    pub(super) lost: Vec<Held>,
}

/// The model, and what the last step shall have brought about.
#[derive(Clone, Default)]
pub(super) struct Trace {
    pub(super) model: Model,
    /// When each sending of the request arrives, and its answer.
    pub(super) replies: Vec<(i64, Reply)>,
    pub(super) stops: Vec<Stop>,
    next: u16,
    sent: Vec<Call>,
}

/// For the record of a failed run, which shows the steps.
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
        let call = proptest::strategy::Union::new_weighted(calls);
        let send = (call, 0..2usize, fault).prop_map(|(call, server, fault)| Step::Send { call, server, fault });
        prop_oneof![
            60 => send,
            10 => select(vec![1i64, 2, 3, 12, 25, 24 * 14]).prop_map(Step::Advance),
            2 => Just(Step::FlushScripts),
            1 => Just(Step::RestartRedis),
        ]
        .boxed()
    }

    fn preconditions(trace: &Trace, step: &Step) -> bool {
        let Step::Send { call, .. } = step else { return true };
        let model = &trace.model;
        let made = |name: &Name| model.made.contains(name);
        let names = match call {
            Call::Submit(name, _) => vec![*name],
            Call::SubmitBatch(tasks) => tasks.iter().map(|(name, _)| *name).collect(),
            _ => Vec::new(),
        };
        let fresh = names.first().is_none_or(|first| model.made.iter().all(|name| name < first));
        fresh
            && call.helds().iter().all(|Held(target, proof)| {
                let is_there = match target {
                    Target::Task(name) => made(name),
                    Target::Nobody => true,
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
                    trace.model.now += AGAIN;
                    trace.arrive(&call.again());
                }
                trace.sent.push(call.clone());
            }
            Step::Advance(hours) => {
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
        self.replies.push((self.model.now, reply));
        let names = match call {
            Call::Submit(name, _) => vec![*name],
            Call::SubmitBatch(tasks) => tasks.iter().map(|(name, _)| *name).collect(),
            _ => Vec::new(),
        };
        // Each leaves room for its duplicate.
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
        other => other,
    }
}

/// Requests that are no repetition, by weight.
fn fresh(trace: &Trace) -> Vec<(u32, BoxedStrategy<Call>)> {
    let (model, next) = (&trace.model, trace.next);
    let queue = || select(QUEUES.to_vec());
    let batch = vec(spec(true), 1..4).prop_map(move |specs| {
        renamed(Call::SubmitBatch(specs.into_iter().map(|spec| (Name(0), spec)).collect()), next)
    });
    let retry = prop_oneof![Just(Retry::AsSubmitted), Just(Retry::Never), (0..3i64).prop_map(Retry::In),];
    let purged = vec![State::Scheduled, State::Ready, State::Completed, State::Dead, State::Cancelled, State::Expired];
    let beat = (held(model), weighted(0.5, 1..4i64), weighted(0.5, 0..4u8));
    vec![
        (12, spec(false).prop_map(move |spec| Call::Submit(Name(next), spec)).boxed()),
        (4, batch.boxed()),
        (14, ask().prop_map(Call::Claim).boxed()),
        (
            8,
            (held(model), 0..4u8, weighted(0.5, ask()))
                .prop_map(|(held, result, then)| Call::Complete(held, result, then))
                .boxed(),
        ),
        (
            3,
            (vec((held(model), 0..4u8), 1..4), weighted(0.5, ask()))
                .prop_map(|(items, then)| Call::CompleteBatch(items, then))
                .boxed(),
        ),
        (7, (held(model), retry).prop_map(|(held, retry)| Call::Fail(held, retry)).boxed()),
        (7, (held(model), select(vec![0i64, 0, 1, 2])).prop_map(|(held, delay)| Call::Release(held, delay)).boxed()),
        (5, vec(beat, 1..3).prop_map(Call::Heartbeat).boxed()),
        (4, target(model).prop_map(Call::Cancel).boxed()),
        (5, target(model).prop_map(Call::Retry).boxed()),
        (2, target(model).prop_map(Call::Delete).boxed()),
        (1, queue().prop_map(Call::Pause).boxed()),
        (2, queue().prop_map(Call::Resume).boxed()),
        (1, (queue(), subsequence(purged, 1..4)).prop_map(|(queue, states)| Call::Purge(queue, states)).boxed()),
    ]
}

/// A task; as an item of a batch it replaces no other: what of a batch goes into one script is not said, and a slot that
/// is emptied and filled in one keeps its turn.
fn spec(in_batch: bool) -> BoxedStrategy<Spec> {
    let modes = if in_batch { vec![Mode::Keep] } else { vec![Mode::Keep, Mode::Replace, Mode::Debounce] };
    let start = prop_oneof![
        12 => Just(Start::In(0)),
        6 => (1..4i64).prop_map(Start::In),
        1 => Just(Start::Past),
        1 => Just(Start::TooFar),
    ];
    let dedupe = (select(vec!["x", "y"]), select(modes), weighted(0.3, 1..4i64));
    let place = (select(QUEUES.to_vec()), weighted(0.6, select(vec!["a", "b"])), select(vec![4u8, 4, 4, 7]), 0..4u8);
    let life = (start, weighted(0.2, 1..5i64), 1..4u32, vec(0..3i64, 1..3), select(vec![0i64, 0, 1, 2]));
    (place, life, weighted(0.2, select(vec![1i64, 48])), weighted(0.3, dedupe), weighted(0.15, select(vec!["i", "j"])))
        .prop_map(|((queue, key, priority, payload), life, retain, dedupe, once)| {
            let (start, expires_in, max_attempts, backoff, max_run) = life;
            Spec {
                queue,
                key,
                priority,
                payload,
                start,
                expires_in,
                max_attempts,
                backoff,
                max_run,
                retain,
                dedupe,
                once,
            }
        })
        .boxed()
}

fn ask() -> BoxedStrategy<Ask> {
    let queues = select(vec![vec!["q"], vec!["r"], vec!["q", "r"], vec!["r", "q"]]);
    let id = weighted(0.2, select(vec!["c", "d"]));
    (queues, 1..4usize, 1..4i64, select(vec!["ann", "bob"]), id)
        .prop_map(|(queues, max, lease, worker, claim_id)| Ask { queues, max, lease, worker, claim_id })
        .boxed()
}

fn target(model: &Model) -> BoxedStrategy<Target> {
    let made: Vec<Target> = model.made.iter().rev().map(|name| Target::Task(*name)).collect();
    if made.is_empty() {
        return Just(Target::Nobody).boxed();
    }
    prop_oneof![12 => select(made), 1 => Just(Target::Nobody)].boxed()
}

/// Mostly a live lease; else an old one, any lease shown for any task, or none.
fn held(model: &Model) -> BoxedStrategy<Held> {
    let given: Vec<Proof> = model.given.iter().rev().map(|(name, nth)| Proof::Lease(*name, *nth)).collect();
    let own: Vec<Held> =
        model.given.iter().rev().map(|(name, nth)| Held(Target::Task(*name), Proof::Lease(*name, *nth))).collect();
    let live = model.tasks.values().filter(|task| task.lease.is_some());
    let live: Vec<Held> =
        live.map(|task| Held(Target::Task(task.name), Proof::Lease(task.name, task.acquired))).collect();
    let nothing = (target(model), prop_oneof![Just(Proof::Garbage), Just(Proof::Malformed)]);
    let mut all = vec![(1, nothing.prop_map(|(target, proof)| Held(target, proof)).boxed())];
    if !live.is_empty() {
        all.push((14, select(live).boxed()));
    }
    if !own.is_empty() {
        all.push((4, select(own).boxed()));
        all.push((2, (target(model), select(given)).prop_map(|(target, proof)| Held(target, proof)).boxed()));
    }
    proptest::strategy::Union::new_weighted(all).boxed()
}
