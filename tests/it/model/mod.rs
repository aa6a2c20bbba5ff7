//! A model of the whole life of tasks in plain Rust: no I/O, one shard, one operation at a time.
//!
//! This file has the state; `lifecycle` has the transitions, `expected` the effect and reply of each request, `submits`
//! those of a submit. `steps`
//! are the steps of a trace, `generate` makes traces, `driver` and `http_requests` play one against servers and this
//! model, and `compare` finds differences.
//!
//! Time: each step of a trace takes a minute, all durations are whole hours, and a trace has far fewer steps than an
//! hour has minutes. Two events fall due together only if one request caused both. Upkeep of different hours runs at
//! different seconds. So real milliseconds never decide an outcome.

mod compare;
mod coverage;
mod driver;
mod expected;
mod generate;
mod http_requests;
mod lifecycle;
mod steps;
mod submits;

use std::collections::{BTreeMap, BTreeSet};

use slotwheel::domain::digest::KeyDigest;
use slotwheel::domain::slot::Slot;
use slotwheel::domain::state::State;

use steps::{ClaimSpec, Name, Proof, Spec};

const HOUR: i64 = 3_600_000;
/// Duration of a step.
const STEP: i64 = 60_000;
/// Delay between a request and its duplicate.
const DUPLICATE_DELAY: i64 = 25_000;
/// Minimum delay between a due time and upkeep.
const UPKEEP_DELAY: i64 = 5_000;
/// Additional delay per elapsed hour, modulo `HOURS`. Of two leases of one claim, the one that ends an hour earlier may
/// have an hour more to wait: then the model must decide the order of the tasks.
const UPKEEP_DELAY_PER_HOUR: i64 = 1_000;
/// More hours than lie between the ends of two leases that one request granted or extended.
const HOURS: i64 = 10;

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Verb {
    Complete,
    Fail,
    Release,
    Revoke,
    ExpireLease,
}

#[derive(Clone, PartialEq, Eq, Debug)]
enum ClaimId {
    /// Worker, id, and the queues in order of their names.
    Given(&'static str, &'static str, Vec<&'static str>),
    /// The proofs of one completion or of a batch of them.
    After(bool, Vec<Proof>),
}

impl ClaimId {
    /// The id that the request chooses.
    fn given(ask: &ClaimSpec) -> Option<Self> {
        let mut queues = ask.queues.clone();
        queues.sort_unstable();
        ask.claim_id.map(|id| ClaimId::Given(ask.worker, id, queues))
    }
}

#[derive(Clone, Debug)]
struct Lease {
    since: i64,
    length: i64,
    until: i64,
    /// Outages since the lease was set, by which `until` is prolonged when it is reached.
    outages: i64,
    /// Outages since the claim, by which `max_run` is prolonged.
    all_outages: i64,
    claim: Option<ClaimId>,
}

#[derive(Clone, Debug)]
struct Failure {
    at: i64,
    attempt: u32,
    kind: &'static str,
    worker: &'static str,
}

/// A task.
#[derive(Clone, Debug)]
struct Task {
    name: Name,
    spec: Spec,
    state: State,
    seq: u64,
    attempts: u32,
    acquired: u32,
    /// Of these, the number before the last retry.
    uncounted: u32,
    cancel: bool,
    /// The task whose end it waits for, and its own time from then on.
    after: Option<Name>,
    start_at: Option<i64>,
    /// Whether the task whose end it waits for gets no further attempt.
    replaces: bool,
    /// End of its dedupe window.
    key_until: Option<i64>,
    worker: Option<&'static str>,
    progress: Option<u8>,
    result: Option<u8>,
    created_at: i64,
    run_at: Option<i64>,
    expires_at: Option<i64>,
    finished_at: Option<i64>,
    drop_at: Option<i64>,
    lease: Option<Lease>,
    /// The last ended lease: its number, the report that ended it, and the reply.
    last: Option<(u32, Verb, State, Option<i64>)>,
    /// All errors, the oldest first.
    errors: Vec<Failure>,
}

impl Task {
    /// The key whose CRC16 is the slot.
    fn slot_key(&self) -> &'static str {
        self.spec.key.or(self.spec.dedupe.map(|(key, _, _)| key)).unwrap_or(self.spec.queue)
    }

    fn is_keyed(&self) -> bool {
        self.spec.key.is_some() || self.spec.dedupe.is_some()
    }

    /// The digest of its key, by which the keys of a slot are served.
    fn key_digest(&self) -> KeyDigest {
        KeyDigest::of_key(self.slot_key().as_bytes())
    }

    /// Its entry in its queue's wheel while it is ready.
    fn wheel_entry(&self) -> WheelEntry {
        (self.spec.priority, Slot::of_key(self.slot_key().as_bytes()).number(), self.is_keyed())
    }

    fn failure(&self, at: i64, attempt: u32, kind: &'static str) -> Failure {
        Failure { at, attempt, kind, worker: self.worker.unwrap_or_default() }
    }

    fn is_waiting(&self) -> bool {
        matches!(self.state, State::Scheduled | State::Ready)
    }

    fn wait_after(&self, attempt: u32) -> i64 {
        self.spec.backoff[(attempt as usize - 1).min(self.spec.backoff.len() - 1)] * HOUR
    }

    /// State and time of its next run, if it waits again from `now` on for this long.
    fn state_after(&self, wait: i64, now: i64) -> (State, Option<i64>) {
        match wait {
            _ if self.expires_at.is_some_and(|at| at <= now) => (State::Expired, None),
            0 => (State::Ready, None),
            wait => (State::Scheduled, Some(now + wait)),
        }
    }

    /// Time of its next transition without a request.
    fn next_due(&self) -> Option<i64> {
        match self.state {
            State::Scheduled => self.run_at.into_iter().chain(self.expires_at).min(),
            State::Ready => self.expires_at,
            State::Leased => self.lease.as_ref().map(|lease| lease.until),
            State::Completed | State::Dead | State::Cancelled | State::Expired => self.drop_at,
        }
    }
}

#[derive(Clone, Default, Debug)]
struct Queue {
    known: bool,
    paused: bool,
    submitted: u64,
    removed: u64,
    /// Those of ready tasks, in the order of turns.
    wheel: Vec<WheelEntry>,
    /// Passes over the keys of an entry that are in the middle: the key that was served last, and the last seq to serve.
    passes: BTreeMap<WheelEntry, (KeyDigest, u64)>,
}

/// Priority, slot, and whether its tasks have keys.
type WheelEntry = (u8, u16, bool);

/// The record of an Idempotency-Key.
#[derive(Clone, Debug)]
struct Record {
    body: Spec,
    name: Name,
    status: Option<u16>,
    until: i64,
}

#[derive(Clone, PartialEq, Eq, Debug)]
struct Problem(u16, &'static str, Option<State>);

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
struct Ended {
    state: State,
    run_at: Option<i64>,
    repeated: bool,
}

/// Claimed tasks, in their order unless they were claimed before.
#[derive(Clone, Debug)]
struct Claimed {
    tasks: Vec<Task>,
    ordered: bool,
}

/// An expected reply.
#[derive(Clone, Debug)]
enum Reply {
    Task(u16, Box<Task>),
    /// A submitted task that has been deleted since.
    Gone(u16, Name),
    Batch(Vec<Reply>),
    Claimed(Claimed),
    /// Of a submit, and of the claim that has waited for its task.
    Met(Box<Reply>, Claimed),
    Transitioned(Name, Ended),
    Completed(Vec<Result<State, Problem>>, Option<Result<Claimed, Problem>>),
    /// The results of a batch of failures or releases.
    Returned(Vec<Result<Ended, Problem>>),
    Heartbeats(Vec<Result<(i64, bool), Problem>>),
    Queue(&'static str, bool),
    Purged(usize),
    Nothing,
    Problem(Problem),
}

type DedupeKey = (&'static str, Option<&'static str>, &'static str);

/// The whole state.
#[derive(Clone, Default, Debug)]
pub struct Model {
    now: i64,
    steps: i64,
    hours: i64,
    seq: u64,
    tasks: BTreeMap<Name, Task>,
    queues: BTreeMap<&'static str, Queue>,
    /// The holder of each dedupe key, and the end of its window.
    keys: BTreeMap<DedupeKey, (Name, Option<i64>)>,
    /// By queue and key.
    records: BTreeMap<(&'static str, &'static str), Record>,
    /// All tasks ever created, and all leases ever granted.
    made: BTreeSet<Name>,
    given: BTreeSet<(Name, u32)>,
}
