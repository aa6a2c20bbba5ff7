//! Defaults and limits of the API, each defined once. Durations are milliseconds, sizes bytes.

/// An inclusive range with its default.
#[derive(Clone, Copy, Debug)]
pub struct ValueRange {
    /// Lowest valid value.
    pub min: i64,
    /// Highest valid value.
    pub max: i64,
    /// Value of an absent field; equals `min` if absence has its own meaning.
    pub default: i64,
}

const fn range(min: i64, max: i64, default: i64) -> ValueRange {
    ValueRange { min, max, default }
}

const SECOND: i64 = 1000;
const HOUR: i64 = 3600 * SECOND;
const DAY: i64 = 24 * HOUR;
const YEAR: i64 = 365 * DAY;

/// Priority of a task: 9 is served first, 0 last.
pub const PRIORITY: ValueRange = range(0, 9, 4);
/// Failed attempts after which a task is dead.
pub const MAX_ATTEMPTS: ValueRange = range(1, 1000, 5);
/// Deliveries after which a release by the worker ends the task; 0: unlimited.
pub const MAX_ACQUIRED: ValueRange = range(0, 1_000_000, 1000);
/// Number of a delivery, by which a request names a lease.
pub const ACQUIRED: ValueRange = range(1, u32::MAX as i64, 1);
/// Duration of a lease.
pub const LEASE_MS: ValueRange = range(SECOND, 12 * HOUR, 60 * SECOND);
/// Time that a request may wait for tasks, for a task's end, or for events.
pub const WAIT_MS: ValueRange = range(0, 60 * SECOND, 0);
/// Time from its start up to which heartbeats extend a lease; 0: unlimited.
pub const MAX_RUN_MS: ValueRange = range(0, 12 * HOUR, 0);
/// Time from submit or release until the task can be claimed.
pub const DELAY_MS: ValueRange = range(0, 10 * YEAR, 0);
/// Time from submit until a task that has not started expires.
pub const EXPIRES_IN_MS: ValueRange = range(1, 10 * YEAR, 1);
/// Retention of an ended task.
pub const RETAIN_MS: ValueRange = range(10 * SECOND, 10 * YEAR, 10 * SECOND);
/// Default retention of a completed task.
pub const RETAIN_COMPLETED_MS: i64 = HOUR;
/// Default retention of a dead task.
pub const RETAIN_DEAD_MS: i64 = 14 * DAY;
/// Default retention of a cancelled or expired task.
pub const RETAIN_OTHER_MS: i64 = DAY;
/// Maximum distance of `run_at` from Redis' clock.
pub const MAX_RUN_AT_OFFSET_MS: i64 = 10 * YEAR;
/// First delay of a backoff.
pub const BACKOFF_BASE_MS: ValueRange = range(0, YEAR, SECOND);
/// Longest delay of a backoff.
pub const BACKOFF_MAX_MS: ValueRange = range(0, YEAR, HOUR);
/// Factor between successive delays of a backoff: minimum, maximum, default.
pub const BACKOFF_FACTOR: (f64, f64, f64) = (1.0, 100.0, 2.0);
/// Maximum number of delays in a backoff of kind `list`.
pub const MAX_BACKOFF_DELAYS: usize = 100;
/// Delay of the next attempt that a worker may request with a failure.
pub const RETRY_IN_MS: ValueRange = range(0, YEAR, 0);
/// Maximum time that a task holds its dedupe key.
pub const DEDUPE_WINDOW_MS: ValueRange = range(1, 10 * YEAR, 1);
/// Maximum number of tasks per claim.
pub const CLAIM_TASKS: ValueRange = range(1, 100, 1);
/// Declared concurrency of a worker.
pub const CONCURRENCY: ValueRange = range(1, 10_000, 1);
/// Window of statistics, a multiple of [`STATS_BUCKET_MS`].
pub const STATS_WINDOW_MS: ValueRange = range(10 * SECOND, 900 * SECOND, 60 * SECOND);
/// Length of a bucket of the counters of scripts.
pub const STATS_BUCKET_MS: i64 = 5 * SECOND;
/// Mean waiting time that the concurrency is planned for.
pub const TARGET_WAIT_MS: ValueRange = range(1, DAY, 1);
/// Time after which a worker without requests and without leases is no longer listed.
pub const WORKER_TIMEOUT_MS: i64 = 30 * SECOND;
/// Number of items per page.
pub const PAGE_SIZE: ValueRange = range(1, 1000, 100);

/// Time that the result for an Idempotency-Key is kept.
pub const IDEMPOTENCY_TTL_MS: i64 = DAY;
/// Maximum size of a payload, a result, a progress value and an error's details, each.
pub const MAX_JSON_BYTES: usize = 256 * 1024;
/// Maximum number of tags per task.
pub const MAX_TAGS: usize = 32;
/// Maximum size of a tag.
pub const MAX_TAG_BYTES: usize = 128;
/// Maximum number of headers per task.
pub const MAX_HEADERS: usize = 32;
/// Maximum size of a task's tags and headers together.
pub const MAX_ATTRIBUTES_BYTES: usize = 16 * 1024;
/// Maximum size of a key, dedupe key, worker name, claim id, Idempotency-Key, and an error's type, each.
pub const MAX_NAME_BYTES: usize = 256;
/// Maximum size of an error's message.
pub const MAX_MESSAGE_BYTES: usize = 4096;
/// Maximum number of errors kept per task.
pub const MAX_ERRORS: u32 = 10;
/// Maximum size of all errors kept per task; the last error is always kept.
pub const MAX_ERRORS_BYTES: usize = 64 * 1024;
/// Maximum number of queues per claim.
pub const MAX_CLAIM_QUEUES: usize = 32;
/// Maximum number of items per batch.
pub const MAX_BATCH_ITEMS: usize = 1000;
/// Maximum size of a request's body other than a batch or heartbeat.
pub const MAX_BODY_BYTES: usize = 1024 * 1024;
/// Maximum size of the body of a batch or heartbeat.
pub const MAX_BATCH_BODY_BYTES: usize = 8 * 1024 * 1024;
/// Maximum nesting depth of JSON.
pub const MAX_JSON_DEPTH: usize = 64;
/// Maximum size of the documents that one call of a script delivers or reads; always at least one document.
pub const MAX_CALL_BYTES: usize = 2 * 1024 * 1024;
/// Maximum number of tasks per call of the claim script.
pub const MAX_CALL_CLAIMS: usize = 100;
/// Maximum number of items per call of any other script.
pub const MAX_CALL_ITEMS: usize = 500;
