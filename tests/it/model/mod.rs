//! The whole life of tasks as it shall be, in plain Rust: no I/O, one shard, one thing at a time.
//!
//! Here is what there is; `life` says how a task goes on, `requests` what each request does and is answered. `calls` are
//! the words of a trace, `generate` makes traces, `driver` and `send` play one to the server and to this model, and `compare` holds
//! what both say against each other.
//!
//! Time: each step of a trace takes a minute, all durations are whole hours, and a trace has far fewer steps than an hour
//! has minutes. Two things fall due together only if one request caused both; what upkeep then does at different hours, it
//! does at different seconds. So nothing is decided by the milliseconds that really pass.

mod compare;
mod coverage;
mod driver;
mod expected;
mod generate;
mod http_requests;
mod lifecycle;
mod steps;

use std::collections::{BTreeMap, BTreeSet};

use slotwheel::domain::state::State;

use steps::{Name, Proof, Spec};

const HOUR: i64 = 3_600_000;
/// What a step takes.
const STEP: i64 = 60_000;
/// How much later than a request its duplicate comes.
const AGAIN: i64 = 25_000;
/// How much later than something falls due upkeep does it, at least.
const LATER: i64 = 5_000;
/// How much later still, with each hour that has gone by, until it begins anew. Of two leases that one claim gave, the one
/// that ends an hour earlier may have an hour longer to wait: then the tasks' order must be the model's to say.
const LATER_BY_HOUR: i64 = 1_000;
/// More hours than there are between the ends of two leases that one request gave or prolonged.
const HOURS: i64 = 10;

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Verb {
    Complete,
    Fail,
    Release,
    Reap,
}

#[derive(Clone, PartialEq, Eq, Debug)]
enum ClaimId {
    Given(&'static str),
    /// What one completion, or a batch of them, showed as proof.
    After(bool, Vec<Proof>),
}

#[derive(Clone, Debug)]
struct Lease {
    since: i64,
    length: i64,
    until: i64,
    claim: Option<ClaimId>,
}

#[derive(Clone, Debug)]
struct Failure {
    at: i64,
    attempt: u32,
    kind: &'static str,
    worker: &'static str,
}

/// A task as it stands.
#[derive(Clone, Debug)]
struct Task {
    name: Name,
    spec: Spec,
    state: State,
    seq: u64,
    attempts: u32,
    acquired: u32,
    cancel: bool,
    worker: Option<&'static str>,
    progress: Option<u8>,
    result: Option<u8>,
    created_at: i64,
    run_at: Option<i64>,
    expires_at: Option<i64>,
    finished_at: Option<i64>,
    drop_at: Option<i64>,
    lease: Option<Lease>,
    /// The last lease that ended: which, by what, and the answer.
    last: Option<(u32, Verb, State, Option<i64>)>,
    errors: BTreeMap<u32, Failure>,
}

impl Task {
    /// Whose CRC16 its slot is.
    fn place(&self) -> &'static str {
        self.spec.key.or(self.spec.dedupe.map(|(key, _, _)| key)).unwrap_or(self.spec.queue)
    }

    /// Where it stands on its queue's wheel when it is ready.
    fn entry(&self) -> (u8, &'static str) {
        (self.spec.priority, self.place())
    }

    fn waits(&self) -> bool {
        matches!(self.state, State::Scheduled | State::Ready)
    }

    fn wait_after(&self, attempt: u32) -> i64 {
        self.spec.backoff[(attempt as usize - 1).min(self.spec.backoff.len() - 1)] * HOUR
    }

    /// When something happens to it by itself, if nobody does anything.
    fn due(&self) -> Option<i64> {
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
    /// (priority, slot) of ready tasks, in the order of their turns.
    wheel: Vec<(u8, &'static str)>,
}

/// What came with an Idempotency-Key.
#[derive(Clone, Debug)]
struct Record {
    body: (Spec, bool),
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

/// What a request shall be answered.
#[derive(Clone, Debug)]
enum Reply {
    Task(u16, Box<Task>),
    /// Submitted once, and forgotten since.
    Gone(u16, Name),
    Batch(Vec<Reply>),
    Claimed(Claimed),
    Moved(Name, Ended),
    Completed(Vec<Result<State, Problem>>, Option<Claimed>),
    Beats(Vec<Result<(i64, bool), Problem>>),
    Queue(&'static str, bool),
    Purged(usize),
    Nothing,
    Problem(Problem),
}

type DedupeKey = (&'static str, Option<&'static str>, &'static str);

/// Everything that there is.
#[derive(Clone, Default, Debug)]
pub struct Model {
    now: i64,
    steps: i64,
    hours: i64,
    seq: u64,
    tasks: BTreeMap<Name, Task>,
    queues: BTreeMap<&'static str, Queue>,
    /// Who holds a dedupe key, and until when at most.
    keys: BTreeMap<DedupeKey, (Name, Option<i64>)>,
    records: BTreeMap<&'static str, Record>,
    /// All tasks that ever were, and all leases.
    made: BTreeSet<Name>,
    given: BTreeSet<(Name, u32)>,
}
