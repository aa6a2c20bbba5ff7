//! The lines of a history: the calls of a client and their replies, one JSON object per line.
//!
//! An operation may be sent several times under one `op`; each request has its own number (`attempt`). Each request has
//! an `invoke`, written before its first byte is sent, and at most one end: `ok`, `fail` (rejected: no effect), or
//! `unknown` (no reply, or one that leaves the effect open). A request without an end is unknown too: its process was
//! killed.
//!
//! `at` is the process' own monotonic clock in µs. A `clock` line has the reading of the shard's clock at that moment and
//! its error bound. With them, the times of all processes and those in replies are times of one clock.

use serde::{Deserialize, Serialize};

/// One line.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Event {
    /// µs on the process' monotonic clock.
    pub at: i64,
    /// ms since 1970 of the system clock, to compare with logs.
    #[serde(default)]
    pub wall: i64,
    /// The process whose clock `at` is.
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
    pub outage: Option<Outage>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub invoke: Option<Call>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ok: Option<Answer>,
    /// The problem code of the rejection.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub fail: Option<String>,
    /// The failure in place of a reply.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub unknown: Option<String>,
}

fn first() -> u32 {
    1
}

/// The shard's clock at `at`, give or take `within_us`.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
pub struct ClockReading {
    pub time_us: i64,
    pub within_us: i64,
}

/// A time in which no server reached Redis, by the shard's clock in ms: it prolongs leases.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
pub struct Outage {
    pub from: i64,
    pub until: i64,
}

/// A call.
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
    /// With `lease_ms`, the completion also claims.
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
    /// Extends by the lease duration of the claim.
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
    /// All tasks of a queue, at the end of the run.
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
    /// The content of its payload, unique per item. It identifies the task in every reply.
    pub name: String,
    #[serde(default)]
    pub priority: u8,
    #[serde(default)]
    pub delay_ms: i64,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub key: Option<String>,
    /// Dedupe key of mode `keep`, without a window.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub dedupe: Option<String>,
}

/// A reply.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Answer {
    /// One outcome per item.
    Submitted(Vec<Outcome>),
    Claimed(Vec<Claimed>),
    Ended {
        state: String,
        /// ms of the shard's clock.
        #[serde(default)]
        run_at: Option<i64>,
        /// Tasks claimed by a completion with `lease_ms`.
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

/// The outcome of one submitted item.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Outcome {
    Created {
        id: String,
        #[serde(default)]
        slot: u16,
    },
    /// The existing task that holds the dedupe key.
    Kept {
        id: String,
    },
    Fail(String),
    Unknown(String),
}

/// A claimed task. Times are ms of the shard's clock.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Claimed {
    pub id: String,
    pub name: String,
    /// A digest of the token.
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
    pub deleted: i64,
}

/// A task as read at the end. Times are ms of the shard's clock.
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
