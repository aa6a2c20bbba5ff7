//! A task as a Redis hash. [`FIELDS`] is the only place that knows the stored names of its fields: Rust writes
//! `fields::LEASE_UNTIL`, and scripts write `F.lease_until`, which [`Script::full_text`](super::redis::script::Script::full_text)
//! replaces.
//!
//! An absent field and an empty field mean the same. opaque.rs has the form of opaque values. A field that is not in the
//! table belongs to a later release and is left alone.

use super::error::{Error, Result};
use super::layout::{KEYLESS, PLACEMENT, Value, placement};
use super::opaque::{decode, decode_document, encode_backoff, encode_document};
use super::redis::reply::ReplyReader;
use super::redis::script::Field;
use crate::domain::digest::KeyDigest;
use crate::domain::id::TaskId;
use crate::domain::limits::{self, ValueRange};
use crate::domain::queue::QueueName;
use crate::domain::slot::Slot;
use crate::domain::task::{ClaimedTask, DedupeMode, NewTask};
use crate::domain::time::TimestampMs;
use crate::domain::token::Token;

macro_rules! fields {
    ($($name:ident = $stored:literal: $holds:literal;)*) => {
        /// Stored names of the fields, by their names in the code.
        pub mod fields {
            $(#[doc = $holds] pub const $name: &str = $stored;)*
        }

        /// All fields. Times and durations are in ms.
        pub const FIELDS: &[Field] = &[$(Field { name: stringify!($name), stored: $stored, holds: $holds }),*];
    };
}

fields! {
    STATE = "S": "state";
    PLACEMENT = "p": "record `placement` of layout.rs";
    LEASE = "l": "record `lease`: the last one";
    ENDING = "f": "record `ending`: the last end of a lease, and that of the task";
    PRIORITY = "p:priority": "see placement";
    SLOT = "p:slot": "see placement";
    MAX_ATTEMPTS = "p:max_attempts": "see placement";
    ATTEMPTS = "p:attempts": "see placement";
    OPTIONS = "p:options": "see placement";
    CREATED_AT = "p:created_at": "see placement";
    READY_AT = "p:ready_at": "see placement";
    SEQ = "p:seq": "see placement";
    KEY_DIGEST = "p:key_digest": "start of the tail of placement, of a task with a key";
    QUEUE = "p:queue": "rest of the tail of placement";
    LEASE_TOKEN = "l:lease_token": "see lease";
    LEASE_UNTIL = "l:lease_until": "see lease";
    LEASED_AT = "l:leased_at": "see lease";
    LEASE_SET_AT = "l:lease_set_at": "see lease";
    LEASE_MS = "l:lease_ms": "see lease";
    ACQUIRED = "l:acquired": "see lease";
    HAS_CLAIM = "l:has_claim": "see lease";
    WORKER = "l:worker": "tail of lease";
    ENDED_LEASE_TOKEN = "f:ended_lease_token": "see ending";
    ENDED_BY = "f:ended_by": "see ending";
    ENDED_STATE = "f:ended_state": "see ending";
    ENDED_RUN_AT = "f:ended_run_at": "see ending";
    FINISHED_AT = "f:finished_at": "see ending";
    END_SEQ = "f:end_seq": "see ending";
    RUN_AT = "w": "time from which the task can be claimed";
    EXPIRES_AT = "x": "time at which the task expires if it still waits";
    EXPIRES_IN_MS = "X": "expires_at as submitted, for a retry";
    MAX_RUN_MS = "M": "limit of a lease, extensions included";
    RETAIN_MS = "R": "how long the ended task is kept";
    MAX_ACQUIRED = "H": "leases after which a release by the worker ends the task, if not the default";
    UNCOUNTED = "I": "leases that do not count for max_acquired: not delivered, or before the last retry";
    DEDUPE_DIGEST = "D": "digest of the dedupe key";
    DEDUPE_UNTIL = "Y": "time until which the task holds that key, if not until it ends";
    SUCCESSOR = "B": "id of the task that waits for the end of this one";
    PREDECESSOR = "E": "id of the task whose end it waits for, which holds its dedupe key";
    START_AT = "F": "run_at from that end on";
    REPLACES = "G": "set if the task whose end it waits for gets no further attempt";
    CLAIM_DIGEST = "C": "digest of the claim id of the last lease that had one, then that of the queues of the claim";
    CANCEL_REQUESTED = "k": "set if a client asked to cancel the leased task";
    COMPLETION_WATCHED = "o": "set if a request waits for the end of the task";
    FOLLOWERS = "n": "leases given with the completion, each the id of its task and the token; in front of those behind a batch, its digest";
    DOCUMENT = "d": "attributes and payload, opaque";
    BACKOFF = "b": "backoff, opaque";
    RESULT = "y": "result, opaque";
    PROGRESS = "g": "progress, opaque";
    QUEUED_SINCE = "i": "ready_at, and the time since which the released task has had its position";
    ERROR_COUNT = "J": "errors so far, those no longer kept included";
    ERROR = "e": "prefix of the errors e0 to e9, by error_count: time, attempt, opaque error";
}

pub(super) fn priority_in_range(number: i64) -> Option<u8> {
    let ValueRange { min, max, .. } = limits::PRIORITY;
    u8::try_from(number).ok().filter(|_| (min..=max).contains(&number))
}

pub(super) fn malformed(id: &TaskId, problem: &str) -> Error {
    Error::Unexpected(format!("task {id}: {problem}"))
}

/// The options of a new task's fields, see layout.rs: 1 if a claim reads some of them, 2 if its end does, 4 if it has no key.
fn field_options(task: &NewTask) -> u64 {
    let is_read_by_claim = task.max_run_ms > 0 || task.expires_in_ms.is_some();
    let is_read_by_end = task.retain_ms.is_some() || task.dedupe.is_some();
    u64::from(is_read_by_claim) + 2 * u64::from(is_read_by_end) + KEYLESS * u64::from(task.key_digest.is_none())
}

/// Returns the start of the record `placement` of a new task, which its submit completes with the times and its position, and
/// behind it the digest of its key, if it has one.
pub(super) fn placement_start(task: &NewTask) -> Vec<u8> {
    let numbers = [task.priority.into(), task.slot.number().into(), task.max_attempts.into(), 0, field_options(task)];
    let mut start = PLACEMENT.encode_start(&numbers.map(Value::Uint));
    start.extend(task.key_digest.iter().flat_map(KeyDigest::as_bytes));
    start
}

/// Returns the fields of a new task that its submit writes as they are. If the task may replace the content of another,
/// empty fields are included.
pub(super) fn submitted_fields(task: &NewTask) -> Result<Vec<(&'static str, Vec<u8>)>> {
    let NewTask { payload, attributes, max_acquired, backoff, max_run_ms, retain_ms, dedupe, .. } = task;
    let replaces = dedupe.as_ref().is_some_and(|dedupe| match dedupe.mode {
        DedupeMode::Keep => false,
        DedupeMode::Replace | DedupeMode::Debounce | DedupeMode::After => true,
    });
    let mut fields = vec![(fields::DOCUMENT, encode_document(attributes, payload)?)];
    let max_run = if *max_run_ms > 0 { max_run_ms.to_string() } else { String::new() };
    let retain = retain_ms.map(|ms| ms.to_string()).unwrap_or_default();
    let backoff = backoff.as_ref().map(encode_backoff).transpose()?.unwrap_or_default();
    let is_default = *max_acquired == limits::MAX_ACQUIRED.default;
    let max_acquired = if is_default { String::new() } else { max_acquired.to_string() };
    for (name, value) in [
        (fields::MAX_RUN_MS, max_run.into()),
        (fields::RETAIN_MS, retain.into()),
        (fields::BACKOFF, backoff),
        (fields::MAX_ACQUIRED, max_acquired.into()),
    ] {
        if replaces || !value.is_empty() {
            fields.push((name, value));
        }
    }
    Ok(fields)
}

/// Decodes a task from the reply of the claim script.
pub(super) fn decode_claimed(
    mut fields: ReplyReader,
    id: TaskId,
    queue: QueueName,
    lease_until: TimestampMs,
    lease: Token,
) -> Result<ClaimedTask> {
    let placement = fields.bytes()?;
    let placement = PLACEMENT.decode(&placement)?;
    let number = |field| i64::try_from(placement.uint(field)).unwrap_or(i64::MAX);
    let slot = u16::try_from(number(placement::Field::slot)).ok().and_then(Slot::new);
    let slot = slot.ok_or_else(|| malformed(&id, "no slot"))?;
    let priority =
        priority_in_range(number(placement::Field::priority)).ok_or_else(|| malformed(&id, "no priority"))?;
    let attempts = u32::try_from(number(placement::Field::attempts)).unwrap_or(0);
    let max_attempts = u32::try_from(number(placement::Field::max_attempts)).unwrap_or(0);
    let created_at = TimestampMs(number(placement::Field::created_at));
    let (attributes, payload) =
        decode_document(&fields.bytes()?).ok_or_else(|| malformed(&id, "its document is unreadable"))?;
    let progress = decode(&fields.bytes()?);
    let expires_at = fields.optional_time()?;
    Ok(ClaimedTask {
        id,
        queue,
        slot,
        priority,
        payload,
        attributes,
        attempt: attempts.saturating_add(1),
        max_attempts,
        progress,
        created_at,
        expires_at,
        lease,
        lease_until,
    })
}
