//! What clients and faults may do in one step, in words short enough to be read as a trace.

use std::fmt;

use slotwheel::domain::state::State;

/// The queues there are.
pub const QUEUES: [&str; 2] = ["q", "r"];

/// A task, by the name that its submit gave it. Later ones have greater names.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Name(pub u16);

/// The task that a request is about.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Target {
    Task(Name),
    /// An id that no task has.
    Nobody,
}

/// What is shown as proof of a lease.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Proof {
    /// The token of a task's n-th lease, from 1: live, stale, or another task's.
    Lease(Name, u32),
    /// A token that was never given.
    Garbage,
    /// No token at all.
    Malformed,
}

/// What a report is about, and its proof.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Held(pub Target, pub Proof);

/// When a new task runs. Durations here and below are hours.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Start {
    In(i64),
    /// A `run_at` long gone.
    Past,
    /// A `run_at` beyond what is taken.
    TooFar,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Mode {
    Keep,
    Replace,
    Debounce,
}

/// A task as it is submitted: the body of the request.
#[derive(Clone, PartialEq, Eq)]
pub struct Spec {
    pub queue: &'static str,
    pub key: Option<&'static str>,
    pub priority: u8,
    /// Stands in payload, tags and headers.
    pub payload: u8,
    pub start: Start,
    pub expires_in: Option<i64>,
    pub max_attempts: u32,
    /// The n-th wait after the n-th failure; the last one from then on.
    pub backoff: Vec<i64>,
    /// 0: no bound.
    pub max_run: i64,
    pub retain: Option<i64>,
    pub dedupe: Option<(&'static str, Mode, Option<i64>)>,
    /// Its Idempotency-Key, a header unless it is an item of a batch.
    pub once: Option<&'static str>,
}

/// A claim.
#[derive(Clone, PartialEq, Eq)]
pub struct Ask {
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
    Claim(Ask),
    Complete(Held, u8, Option<Ask>),
    CompleteBatch(Vec<(Held, u8)>, Option<Ask>),
    /// `retry: false`, or the wait that the worker asks for, if any.
    Fail(Held, Retry),
    Release(Held, i64),
    /// Each with the length that the worker asks for, and its progress.
    Heartbeat(Vec<(Held, Option<i64>, Option<u8>)>),
    Cancel(Target),
    Retry(Target),
    Delete(Target),
    Pause(&'static str),
    Resume(&'static str),
    Purge(&'static str, Vec<State>),
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Retry {
    Never,
    In(i64),
    AsSubmitted,
}

/// What goes wrong with a request.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Fault {
    Nothing,
    /// It is sent again when it has been answered.
    Twice,
    /// Redis' first answer to it is lost after the script ran.
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
    /// Time passes, hours.
    Advance(i64),
    FlushScripts,
    RestartRedis,
}

impl Call {
    /// The same body once more; what it makes has names of its own.
    pub fn again(&self) -> Call {
        let next = |name: &Name| Name(name.0 + 1);
        match self {
            Call::Submit(name, spec) => Call::Submit(next(name), spec.clone()),
            Call::SubmitBatch(tasks) => {
                Call::SubmitBatch(tasks.iter().map(|(name, spec)| (next(name), spec.clone())).collect())
            }
            other => other.clone(),
        }
    }

    /// The leases and tasks that it names, which a trace must have brought about before.
    pub fn helds(&self) -> Vec<Held> {
        match self {
            Call::Complete(held, _, _) | Call::Fail(held, _) | Call::Release(held, _) => vec![*held],
            Call::CompleteBatch(items, _) => items.iter().map(|(held, _)| *held).collect(),
            Call::Heartbeat(beats) => beats.iter().map(|(held, _, _)| *held).collect(),
            Call::Cancel(target) | Call::Retry(target) | Call::Delete(target) => vec![Held(*target, Proof::Garbage)],
            Call::Submit(..) | Call::SubmitBatch(_) | Call::Claim(_) => Vec::new(),
            Call::Pause(_) | Call::Resume(_) | Call::Purge(..) => Vec::new(),
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
            Target::Nobody => f.write_str("nobody"),
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

impl fmt::Debug for Ask {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} of {} for {}h by {}", self.max, self.queues.join(","), self.lease, self.worker)?;
        self.claim_id.map_or(Ok(()), |id| write!(f, " as {id}"))
    }
}

struct Then<'a>(&'a Option<Ask>);

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
            Call::Complete(held, result, then) => write!(f, "complete {held:?} #{result}{:?}", Then(then)),
            Call::CompleteBatch(items, then) => {
                f.write_str("complete a batch:")?;
                items.iter().try_for_each(|(held, result)| write!(f, " {held:?} #{result};"))?;
                write!(f, "{:?}", Then(then))
            }
            Call::Fail(held, retry) => write!(f, "fail {held:?}, retry {retry:?}"),
            Call::Release(held, delay) => write!(f, "release {held:?}, in {delay}h"),
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
            Step::FlushScripts => f.write_str("script flush"),
            Step::RestartRedis => f.write_str("kill and restart Redis"),
        }
    }
}
