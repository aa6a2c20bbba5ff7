//! Steps of a trace: requests and faults, with a readable debug form.

use std::fmt;

use slotwheel::domain::state::State;

/// The queues.
pub const QUEUES: [&str; 2] = ["q", "r"];

/// A task's name, given by its submit. Later tasks have greater names.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Name(pub u16);

/// The task of a request.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Target {
    Task(Name),
    /// The id of no task.
    NoTask,
}

/// The proof of a lease.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Proof {
    /// The token of a task's n-th lease, from 1: live, stale, or another task's.
    Lease(Name, u32),
    /// A well-formed token that was never granted.
    Garbage,
    /// Text that is no token.
    Malformed,
}

/// The task of a report, and its proof.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Held(pub Target, pub Proof);

/// When a new task runs. Durations here and below are hours.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Start {
    In(i64),
    /// A `run_at` in the past.
    Past,
    /// A `run_at` beyond the maximum.
    TooFar,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Mode {
    Keep,
    Replace,
    Debounce,
    After,
}

/// A task as it is submitted: the body of the request.
#[derive(Clone, PartialEq, Eq)]
pub struct Spec {
    pub queue: &'static str,
    pub key: Option<&'static str>,
    pub priority: u8,
    /// Written to payload, tags and headers.
    pub payload: u8,
    pub start: Start,
    pub expires_in: Option<i64>,
    pub max_attempts: u32,
    /// `None`: the default, which no trace reaches.
    pub max_acquired: Option<u32>,
    /// The wait after each failure; the last one repeats.
    pub backoff: Vec<i64>,
    /// 0: unlimited.
    pub max_run: i64,
    pub retain: Option<i64>,
    pub dedupe: Option<(&'static str, Mode, Option<i64>)>,
    /// The Idempotency-Key: a header, or a field of a batch item.
    pub once: Option<&'static str>,
}

/// A claim.
#[derive(Clone, PartialEq, Eq)]
pub struct ClaimSpec {
    pub queues: Vec<&'static str>,
    pub max: usize,
    pub lease: i64,
    pub worker: &'static str,
    pub claim_id: Option<&'static str>,
}

/// A request.
#[derive(Clone, PartialEq, Eq)]
pub enum Call {
    Submit(Name, Spec),
    SubmitBatch(Vec<(Name, Spec)>),
    Claim(ClaimSpec),
    /// A submit while a claim of queues without a claimable task waits.
    Meet(ClaimSpec, Name, Box<Spec>),
    Complete(Held, u8, Option<ClaimSpec>),
    CompleteBatch(Vec<(Held, u8)>, Option<ClaimSpec>),
    /// `retry: false`, or the worker's own delay, if any.
    Fail(Held, Retry),
    Release(Held, i64),
    FailBatch(Vec<(Held, Retry)>),
    ReleaseBatch(Vec<(Held, i64)>),
    /// A release without a token, after a delay, of the lease with this number.
    Revoke(Target, i64, Option<u32>),
    Run(Target),
    /// Each with the worker's lease duration and its progress.
    Heartbeat(Vec<(Held, Option<i64>, Option<u8>)>),
    Cancel(Target),
    Retry(Target),
    Delete(Target),
    Pause(&'static str),
    Resume(&'static str),
    Purge(&'static str, Vec<State>),
    /// Removes a queue.
    Remove(&'static str),
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Retry {
    Never,
    In(i64),
    AsSubmitted,
}

/// The fault of a request.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Fault {
    Nothing,
    /// The request is sent again after its reply.
    Twice,
    /// Redis' first reply to it is lost after the script ran.
    Lost,
}

/// A step of a trace.
#[derive(Clone, PartialEq, Eq)]
pub enum Step {
    /// A request to one of two servers.
    Send {
        call: Call,
        server: usize,
        fault: Fault,
    },
    /// Hours pass.
    Advance(i64),
    /// Hours pass in which no server reaches Redis.
    Outage(i64),
    FlushScripts,
    RestartRedis,
}

impl Call {
    /// The same body again; created tasks get new names.
    pub fn again(&self) -> Call {
        let next = |name: &Name| Name(name.0 + 1);
        match self {
            Call::Submit(name, spec) => Call::Submit(next(name), spec.clone()),
            Call::SubmitBatch(tasks) => {
                Call::SubmitBatch(tasks.iter().map(|(name, spec)| (next(name), spec.clone())).collect())
            }
            Call::Meet(ask, name, spec) => Call::Meet(ask.clone(), next(name), spec.clone()),
            other => other.clone(),
        }
    }

    /// The tasks that the call may make.
    pub fn new_names(&self) -> Vec<Name> {
        match self {
            Call::Submit(name, _) | Call::Meet(_, name, _) => vec![*name],
            Call::SubmitBatch(tasks) => tasks.iter().map(|(name, _)| *name).collect(),
            _ => Vec::new(),
        }
    }

    /// The leases and tasks named by the call, which the trace must have created before.
    pub fn held_leases(&self) -> Vec<Held> {
        match self {
            Call::Complete(held, _, _) | Call::Fail(held, _) | Call::Release(held, _) => vec![*held],
            Call::CompleteBatch(items, _) => items.iter().map(|(held, _)| *held).collect(),
            Call::FailBatch(items) => items.iter().map(|(held, _)| *held).collect(),
            Call::ReleaseBatch(items) => items.iter().map(|(held, _)| *held).collect(),
            Call::Revoke(target, _, _) | Call::Run(target) => vec![Held(*target, Proof::Garbage)],
            Call::Heartbeat(beats) => beats.iter().map(|(held, _, _)| *held).collect(),
            Call::Cancel(target) | Call::Retry(target) | Call::Delete(target) => vec![Held(*target, Proof::Garbage)],
            Call::Submit(..) | Call::SubmitBatch(_) | Call::Claim(_) | Call::Meet(..) => Vec::new(),
            Call::Pause(_) | Call::Resume(_) | Call::Purge(..) | Call::Remove(_) => Vec::new(),
        }
    }
}

impl fmt::Debug for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "t{}", self.0)
    }
}

impl fmt::Debug for Held {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?} with ", self.0)?;
        match self.1 {
            Proof::Lease(name, nth) => write!(f, "lease {nth} of {name:?}"),
            Proof::Garbage => f.write_str("garbage"),
            Proof::Malformed => f.write_str("no token"),
        }
    }
}

impl fmt::Debug for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Target::Task(name) => name.fmt(f),
            Target::NoTask => f.write_str("no task"),
        }
    }
}

impl fmt::Debug for Spec {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Spec { queue, key, priority, payload, start, expires_in, max_attempts, backoff, .. } = self;
        write!(f, "{queue}/{} p{priority} #{payload}", key.unwrap_or("-"))?;
        match start {
            Start::In(0) => {}
            Start::In(hours) => write!(f, " in {hours}h")?,
            other => write!(f, " {other:?}")?,
        }
        if let Some(hours) = expires_in {
            write!(f, " expires {hours}h")?;
        }
        write!(f, " attempts {max_attempts} backoff {backoff:?}")?;
        if let Some(max) = self.max_acquired {
            write!(f, " deliveries {max}")?;
        }
        if self.max_run > 0 {
            write!(f, " runs {}h", self.max_run)?;
        }
        if let Some(hours) = self.retain {
            write!(f, " kept {hours}h")?;
        }
        if let Some((key, mode, window)) = self.dedupe {
            write!(f, " dedupe {key} {mode:?}")?;
            if let Some(hours) = window {
                write!(f, " {hours}h")?;
            }
        }
        self.once.map_or(Ok(()), |key| write!(f, " once {key}"))
    }
}

impl fmt::Debug for ClaimSpec {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} of {} for {}h by {}", self.max, self.queues.join(","), self.lease, self.worker)?;
        self.claim_id.map_or(Ok(()), |id| write!(f, " as {id}"))
    }
}

struct Then<'a>(&'a Option<ClaimSpec>);

impl fmt::Debug for Then<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.as_ref().map_or(Ok(()), |ask| write!(f, ", then claim {ask:?}"))
    }
}

impl fmt::Debug for Call {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Call::Submit(name, spec) => write!(f, "submit {name:?}: {spec:?}"),
            Call::SubmitBatch(tasks) => {
                f.write_str("submit a batch:")?;
                tasks.iter().try_for_each(|(name, spec)| write!(f, " {name:?}: {spec:?};"))
            }
            Call::Claim(ask) => write!(f, "claim {ask:?}"),
            Call::Meet(ask, name, spec) => write!(f, "meet claim {ask:?}: {name:?}: {spec:?}"),
            Call::Complete(held, result, then) => write!(f, "complete {held:?} #{result}{:?}", Then(then)),
            Call::CompleteBatch(items, then) => {
                f.write_str("complete a batch:")?;
                items.iter().try_for_each(|(held, result)| write!(f, " {held:?} #{result};"))?;
                write!(f, "{:?}", Then(then))
            }
            Call::Fail(held, retry) => write!(f, "fail {held:?}, retry {retry:?}"),
            Call::Release(held, delay) => write!(f, "release {held:?}, in {delay}h"),
            Call::FailBatch(items) => write!(f, "fail-batch {items:?}"),
            Call::ReleaseBatch(items) => write!(f, "release-batch {items:?}"),
            Call::Revoke(target, delay, nth) => write!(f, "revoke {target:?}, in {delay}h, lease {nth:?}"),
            Call::Run(target) => write!(f, "run {target:?}"),
            Call::Heartbeat(beats) => {
                f.write_str("heartbeat:")?;
                beats
                    .iter()
                    .try_for_each(|(held, lease, progress)| write!(f, " {held:?} for {lease:?} progress {progress:?};"))
            }
            Call::Cancel(target) => write!(f, "cancel {target:?}"),
            Call::Retry(target) => write!(f, "retry {target:?}"),
            Call::Delete(target) => write!(f, "delete {target:?}"),
            Call::Pause(queue) => write!(f, "pause {queue}"),
            Call::Resume(queue) => write!(f, "resume {queue}"),
            Call::Remove(queue) => write!(f, "remove {queue}"),
            Call::Purge(queue, states) => write!(f, "purge {queue} of {states:?}"),
        }
    }
}

impl fmt::Debug for Step {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Step::Send { call, server, fault } => {
                let fault = match fault {
                    Fault::Nothing => "",
                    Fault::Twice => " (twice)",
                    Fault::Lost => " (reply lost)",
                };
                write!(f, "server {server}: {call:?}{fault}")
            }
            Step::Advance(hours) => write!(f, "advance {hours}h"),
            Step::Outage(hours) => write!(f, "outage of {hours}h"),
            Step::FlushScripts => f.write_str("script flush"),
            Step::RestartRedis => f.write_str("kill and restart Redis"),
        }
    }
}
