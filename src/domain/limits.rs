//! The table of defaults and bounds: each number stands here once. Durations are milliseconds, sizes bytes.

/// An inclusive range and what holds where nothing is said.
#[derive(Clone, Copy, Debug)]
pub struct ValueRange {
    /// The least value taken.
    pub min: i64,
    /// The greatest value taken.
    pub max: i64,
    /// The value where none is given; equals `min` where leaving out means something else.
    pub default: i64,
}

const fn range(min: i64, max: i64, default: i64) -> ValueRange {
    ValueRange { min, max, default }
}

const SECOND: i64 = 1000;
const HOUR: i64 = 3600 * SECOND;
const DAY: i64 = 24 * HOUR;
const YEAR: i64 = 365 * DAY;

/// 0 is served last, 9 first.
pub const PRIORITY: ValueRange = range(0, 9, 4);
/// Executions that may fail before a task is dead.
pub const MAX_ATTEMPTS: ValueRange = range(1, 1000, 5);
/// How long a claimed task is the worker's.
pub const LEASE_MS: ValueRange = range(SECOND, 12 * HOUR, 60 * SECOND);
/// How long a request may wait for something to happen.
pub const WAIT_MS: ValueRange = range(0, 60 * SECOND, 0);
/// How long heartbeats may prolong one lease, from its start; 0: without end.
pub const MAX_RUN_MS: ValueRange = range(0, 12 * HOUR, 0);
/// From submit, or from release, until the task can be claimed.
pub const DELAY_MS: ValueRange = range(0, 10 * YEAR, 0);
/// From submit until a task that has not started is expired.
pub const EXPIRES_IN_MS: ValueRange = range(1, 10 * YEAR, 1);
/// How long an ended task is kept.
pub const RETAIN_MS: ValueRange = range(10 * SECOND, 10 * YEAR, 10 * SECOND);
/// How long a completed task is kept where it does not say.
pub const RETAIN_COMPLETED_MS: i64 = HOUR;
/// How long a dead task is kept where it does not say.
pub const RETAIN_DEAD_MS: i64 = 14 * DAY;
/// How long a cancelled or expired task is kept where it does not say.
pub const RETAIN_OTHER_MS: i64 = DAY;
/// `run_at` lies within this of Redis' clock.
pub const MAX_RUN_AT_OFFSET_MS: i64 = 10 * YEAR;
/// The first wait of a backoff.
pub const BACKOFF_BASE_MS: ValueRange = range(0, YEAR, SECOND);
/// The longest wait of a backoff.
pub const BACKOFF_MAX_MS: ValueRange = range(0, YEAR, HOUR);
/// By how much each wait of a backoff exceeds the one before.
pub const BACKOFF_FACTOR: (f64, f64, f64) = (1.0, 100.0, 2.0);
/// How many waits a listed backoff may name.
pub const MAX_BACKOFF_DELAYS: usize = 100;
/// What a worker may ask for with a failure.
pub const RETRY_IN_MS: ValueRange = range(0, YEAR, 0);
/// How long a dedupe key is held at most.
pub const DEDUPE_WINDOW_MS: ValueRange = range(1, 10 * YEAR, 1);
/// Tasks a claim asks for.
pub const CLAIM_TASKS: ValueRange = range(1, 100, 1);
/// Tasks that a worker says it works at.
pub const CONCURRENCY: ValueRange = range(1, 10_000, 1);
/// A window of statistics, in steps of [`STATS_BUCKET_MS`].
pub const STATS_WINDOW_MS: ValueRange = range(10 * SECOND, 900 * SECOND, 60 * SECOND);
/// What scripts count is summed up in buckets of this length.
pub const STATS_BUCKET_MS: i64 = 5 * SECOND;
/// A mean waiting time to plan for.
pub const TARGET_WAIT_MS: ValueRange = range(1, DAY, 1);
/// A worker that was not seen for so long, and holds nothing, has gone.
pub const WORKER_TIMEOUT_MS: i64 = 30 * SECOND;
/// Items of a page.
pub const PAGE_SIZE: ValueRange = range(1, 1000, 100);

/// How long an Idempotency-Key is remembered.
pub const IDEMPOTENCY_TTL_MS: i64 = DAY;
/// Payload, result, progress and the details of an error.
pub const MAX_JSON_BYTES: usize = 256 * 1024;
/// Tags of a task.
pub const MAX_TAGS: usize = 32;
/// One tag.
pub const MAX_TAG_BYTES: usize = 128;
/// Headers of a task.
pub const MAX_HEADERS: usize = 32;
/// Tags and headers of a task together.
pub const MAX_ATTRIBUTES_BYTES: usize = 16 * 1024;
/// Key, dedupe key, worker, claim id, Idempotency-Key, and the type of an error.
pub const MAX_NAME_BYTES: usize = 256;
/// The message of an error.
pub const MAX_MESSAGE_BYTES: usize = 4096;
/// Errors that a task remembers.
pub const MAX_ERRORS: u32 = 10;
/// All the errors that a task remembers; the last one is kept whatever its size.
pub const MAX_ERRORS_BYTES: usize = 64 * 1024;
/// Queues named by a claim.
pub const MAX_CLAIM_QUEUES: usize = 32;
/// Items of a batch.
pub const MAX_BATCH_ITEMS: usize = 1000;
/// A request's body, except where it carries many documents.
pub const MAX_BODY_BYTES: usize = 1024 * 1024;
/// The body of a batch or a heartbeat.
pub const MAX_BATCH_BODY_BYTES: usize = 8 * 1024 * 1024;
/// Depth of JSON, counted in open brackets.
pub const MAX_JSON_DEPTH: usize = 64;
/// What one call of a script hands out or reads at most, in documents; always at least one.
pub const MAX_CALL_BYTES: usize = 2 * 1024 * 1024;
/// Items of one call of a claim.
pub const MAX_CALL_CLAIMS: usize = 100;
/// Items of one call of any other script.
pub const MAX_CALL_ITEMS: usize = 500;
