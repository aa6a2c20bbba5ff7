//! The lines of a history: what a client did and what it was told, one JSON object a line.
//!
//! An operation is what a client wants; it may be sent several times under one `op`, each sending with a number of its
//! own (`attempt`). Each sending has an `invoke`, written before its first byte leaves, and at most one end: `ok`, `fail`
//! (refused: it had no effect), or `unknown` (no answer, or one that says that nobody knows). A sending without an end
//! is unknown too: its process was killed.
//!
//! `at` is the process' own monotonic clock in µs. A `clock` line says what Redis' clock was at that moment, and how
//! exactly that is known; through it the times of all processes, and those in answers, are times of one clock.

use serde::{Deserialize, Serialize};

/// One line.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Event {
    /// µs on the process' monotonic clock.
    pub at: i64,
    /// ms since 1970 on the system's clock: for people who compare with logs.
    #[serde(default)]
    pub wall: i64,
    /// Whose clock `at` is of.
    #[serde(default)]
    pub process: String,
    #[serde(default)]
    pub client: String,
    #[serde(default)]
    pub op: u64,
    #[serde(default = "first")]
    pub attempt: u32,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub clock: Option<ClockReading>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub invoke: Option<Call>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ok: Option<Answer>,
    /// The code of the refusal.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub fail: Option<String>,
    /// What came instead of an answer.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub unknown: Option<String>,
}

fn first() -> u32 {
    1
}

/// Redis' clock at `at`, give or take `within_us`.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
pub struct ClockReading {
    pub redis_us: i64,
    pub within_us: i64,
}

/// What is asked.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Call {
    Submit {
        queue: String,
        items: Vec<Item>,
    },
    Claim {
        lease_ms: i64,
        #[serde(default)]
        claim_id: bool,
    },
    /// With `lease_ms`, a claim follows.
    Complete {
        id: String,
        token: String,
        result: String,
        #[serde(default)]
        lease_ms: Option<i64>,
    },
    Fail {
        id: String,
        token: String,
        #[serde(default = "yes")]
        retry: bool,
    },
    Release {
        id: String,
        token: String,
    },
    /// For as long as the claim asked for.
    Heartbeat {
        id: String,
        token: String,
    },
    Cancel {
        id: String,
    },
    /// The counts of a queue.
    Counts {
        queue: String,
    },
    /// All tasks of a queue, when all has ended.
    Tasks {
        queue: String,
    },
}

fn yes() -> bool {
    true
}

/// A task as it was submitted.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct Item {
    /// What its payload says: no two items have one name. Under it the task is known again wherever it turns up.
    pub name: String,
    #[serde(default)]
    pub priority: u8,
    #[serde(default)]
    pub delay_ms: i64,
    /// `keep` without a window.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub dedupe: Option<String>,
}

/// What is answered.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Answer {
    /// One for each item.
    Submitted(Vec<Outcome>),
    Claimed(Vec<Claimed>),
    Ended {
        state: String,
        /// ms of Redis' clock.
        #[serde(default)]
        run_at: Option<i64>,
        /// What the claim behind a completion got.
        #[serde(default)]
        tasks: Vec<Claimed>,
    },
    Held {
        until: i64,
    },
    Cancelled {
        state: String,
    },
    Counts(Counts),
    Tasks(Vec<Read>),
}

/// What became of an item of a submit.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Outcome {
    Created {
        id: String,
        #[serde(default)]
        slot: u16,
    },
    /// Its dedupe key was held by this task.
    Kept {
        id: String,
    },
    Fail(String),
    Unknown(String),
}

/// A task handed out. Times are ms of Redis' clock.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Claimed {
    pub id: String,
    pub name: String,
    /// Of the token, a digest.
    pub token: String,
    pub until: i64,
    pub attempt: u32,
}

/// A queue's counts.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Counts {
    pub submitted: i64,
    pub scheduled: i64,
    pub ready: i64,
    pub leased: i64,
    pub completed: i64,
    pub dead: i64,
    pub cancelled: i64,
    pub expired: i64,
    pub removed: i64,
}

/// A task as it stands at the end. Times are ms of Redis' clock.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Read {
    pub id: String,
    pub name: String,
    pub state: String,
    pub attempts: u32,
    pub max_attempts: u32,
    pub acquired: u32,
    #[serde(default)]
    pub result: Option<String>,
    pub created_at: i64,
    #[serde(default)]
    pub finished_at: Option<i64>,
}
