//! A task as a Redis hash. [`FIELDS`] is the only place that knows the stored names of its fields: Rust writes
//! `fields::LEASE_UNTIL`, and scripts write `F.lease_until`, which [`Script::full_text`](super::redis::script::Script::full_text)
//! replaces.
//!
//! An absent field and an empty field mean the same. Opaque values start with a format byte. A field that is not in the
//! table belongs to a later release and is left alone.

use std::collections::HashMap;

use deadpool_redis::redis::Value;

use super::error::{Error, Result};
use super::opaque::{decode, decode_document, decode_error, encode_backoff, encode_document, is_dropped};
use super::redis::reply::{ReplyReader, parse_int, read_list};
use super::redis::script::Field;
use crate::domain::id::TaskId;
use crate::domain::limits::{self, ValueRange};
use crate::domain::queue::QueueName;
use crate::domain::slot::Slot;
use crate::domain::state::State;
use crate::domain::task::{ClaimedTask, DedupeMode, NewTask, Task};
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
    QUEUE = "q": "queue";
    SLOT = "s": "slot";
    PRIORITY = "p": "priority";
    SEQ = "n": "position in the slot queue";
    CREATED_AT = "c": "time of creation";
    READY_AT = "r": "time at which the task last became ready, if not created_at";
    RUN_AT = "w": "time from which the task can be claimed";
    EXPIRES_AT = "x": "time at which the task expires if it still waits";
    EXPIRES_IN_MS = "X": "expires_at as submitted, for a retry";
    MAX_ATTEMPTS = "m": "limit of attempts";
    MAX_RUN_MS = "M": "limit of a lease, extensions included";
    RETAIN_MS = "R": "how long the ended task is kept";
    ATTEMPTS = "a": "failed attempts";
    ACQUIRED = "A": "leases so far";
    MAX_ACQUIRED = "H": "leases after which a release by the worker ends the task, if not the default";
    UNCOUNTED = "I": "leases that do not count for max_acquired: not delivered, or before the last retry";
    DEDUPE_DIGEST = "D": "digest of the dedupe key";
    DEDUPE_UNTIL = "Y": "time until which the task holds that key, if not until it ends";
    SUCCESSOR = "B": "id of the task that waits for the end of this one";
    PREDECESSOR = "E": "id of the task whose end it waits for, which holds its dedupe key";
    START_AT = "F": "run_at from that end on";
    REPLACES = "G": "set if the task whose end it waits for gets no further attempt";
    LEASE_TOKEN = "t": "token of the last lease";
    LEASE_UNTIL = "u": "end of that lease";
    LEASED_AT = "h": "start of that lease";
    LEASE_SET_AT = "N": "time at which that lease was last extended or prolonged, if not leased_at";
    LEASE_MS = "L": "length of that lease as asked for";
    WORKER = "W": "worker with that lease";
    CLAIM_DIGEST = "C": "digest of the claim id of that lease, then that of the queues of the claim";
    CANCEL_REQUESTED = "k": "set if a client asked to cancel the leased task";
    ENDED_LEASE_TOKEN = "T": "token of the last lease that ended";
    ENDED_LEASE_REPLY = "V": "operation, state, run_at: the reply to the end of that lease";
    COMPLETION_WATCHED = "o": "set if a request waits for the end of the task";
    FINISHED_AT = "f": "time of the end";
    DOCUMENT = "d": "attributes and payload, opaque";
    BACKOFF = "b": "backoff, opaque";
    RESULT = "y": "result, opaque";
    PROGRESS = "g": "progress, opaque";
    QUEUED_SINCE = "i": "ready_at, and the time since which the released task has had its position";
    ERROR_COUNT = "J": "errors so far, those no longer kept included";
    ERROR = "e": "prefix of the errors e0 to e9, by error_count: time, attempt, opaque error";
}

fn priority_in_range(number: i64) -> Option<u8> {
    let ValueRange { min, max, .. } = limits::PRIORITY;
    u8::try_from(number).ok().filter(|_| (min..=max).contains(&number))
}

fn malformed(id: &TaskId, problem: &str) -> Error {
    Error::Unexpected(format!("task {id}: {problem}"))
}

/// Returns the fields of a new task that its submit writes as they are. If the task may replace the content of another,
/// empty fields are included.
pub(super) fn submitted_fields(task: &NewTask) -> Result<Vec<(&'static str, Vec<u8>)>> {
    let NewTask { payload, attributes, max_attempts, max_acquired, backoff, max_run_ms, retain_ms, dedupe, .. } = task;
    let replaces = dedupe.as_ref().is_some_and(|dedupe| match dedupe.mode {
        DedupeMode::Keep => false,
        DedupeMode::Replace | DedupeMode::Debounce | DedupeMode::After => true,
    });
    let mut fields = vec![
        (fields::DOCUMENT, encode_document(attributes, payload)?),
        (fields::MAX_ATTEMPTS, max_attempts.to_string().into()),
    ];
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

/// A task's hash as HGETALL returns it: its fields by stored name, without empty ones.
pub(super) struct TaskHash {
    id: TaskId,
    by_name: HashMap<Vec<u8>, Vec<u8>>,
}

impl TaskHash {
    /// Returns `None` if there is no such task.
    pub(super) fn parse(id: TaskId, reply: Value) -> Result<Option<Self>> {
        let pairs: Vec<(Value, Value)> = match reply {
            Value::Map(pairs) => pairs,
            list => {
                let mut list = read_list(list)?;
                let mut pairs = Vec::new();
                while let Some(name) = list.next() {
                    pairs.push((name, list.value()?));
                }
                pairs
            }
        };
        let mut by_name = HashMap::with_capacity(pairs.len());
        for (name, value) in pairs {
            let value = super::redis::reply::bytes(value)?;
            if !value.is_empty() {
                by_name.insert(super::redis::reply::bytes(name)?, value);
            }
        }
        Ok((!by_name.is_empty()).then_some(TaskHash { id, by_name }))
    }

    /// Returns the name of the task in messages.
    pub(super) fn name(&self) -> String {
        format!("task {}", self.id)
    }

    pub(super) fn bytes(&self, name: &str) -> Option<&[u8]> {
        self.by_name.get(name.as_bytes()).map(Vec::as_slice)
    }

    pub(super) fn text(&self, name: &str) -> Option<&str> {
        std::str::from_utf8(self.bytes(name)?).ok()
    }

    pub(super) fn int(&self, name: &str) -> Option<i64> {
        parse_int(self.bytes(name)?)
    }

    fn require<T>(&self, name: &str, value: Option<T>) -> Result<T> {
        value.ok_or_else(|| malformed(&self.id, &format!("field {name} is missing or unreadable")))
    }

    /// Returns a number; an error if the field is missing or not a number.
    pub(super) fn required_int(&self, name: &str) -> Result<i64> {
        self.require(name, self.int(name))
    }

    fn u32_or_zero(&self, name: &str) -> u32 {
        self.int(name).and_then(|number| u32::try_from(number).ok()).unwrap_or(0)
    }

    fn time(&self, name: &str) -> Option<TimestampMs> {
        self.int(name).map(TimestampMs)
    }

    pub(super) fn state(&self) -> Result<State> {
        self.require(fields::STATE, self.text(fields::STATE).and_then(State::parse))
    }

    pub(super) fn queue(&self) -> Result<QueueName> {
        self.require(fields::QUEUE, self.text(fields::QUEUE).and_then(QueueName::parse))
    }

    pub(super) fn slot(&self) -> Result<Slot> {
        self.require(fields::SLOT, self.int(fields::SLOT).and_then(|s| u16::try_from(s).ok()).and_then(Slot::new))
    }

    pub(super) fn priority(&self) -> Result<u8> {
        self.require(fields::PRIORITY, self.int(fields::PRIORITY).and_then(priority_in_range))
    }

    /// Returns the time at which the last lease was given, extended or prolonged.
    pub(super) fn lease_set_at(&self) -> Result<TimestampMs> {
        let leased_at = self.require(fields::LEASED_AT, self.time(fields::LEASED_AT))?;
        Ok(self.time(fields::LEASE_SET_AT).map_or(leased_at, |set_at| set_at.max(leased_at)))
    }

    /// Decodes the whole task.
    pub(super) fn task(&self) -> Result<Task> {
        let document = self.bytes(fields::DOCUMENT).and_then(decode_document);
        let (attributes, payload) = self.require(fields::DOCUMENT, document)?;
        let state = self.state()?;
        // The oldest first: the ring continues behind the last error.
        let last = self.int(fields::ERROR_COUNT).or(self.int(fields::ATTEMPTS)).unwrap_or(0);
        let ring = (1..=i64::from(limits::MAX_ERRORS))
            .map(|place| last.wrapping_add(place).rem_euclid(limits::MAX_ERRORS.into()));
        let errors = ring.filter_map(|index| decode_error(self.bytes(&format!("{}{index}", fields::ERROR))?)).collect();
        let leased = state == State::Leased;
        let after = self.bytes(fields::PREDECESSOR).and_then(TaskId::from_bytes);
        Ok(Task {
            id: self.id,
            queue: self.queue()?,
            slot: self.slot()?,
            state,
            priority: self.priority()?,
            payload,
            attributes,
            attempts: self.u32_or_zero(fields::ATTEMPTS),
            max_attempts: self.u32_or_zero(fields::MAX_ATTEMPTS),
            acquired: self.u32_or_zero(fields::ACQUIRED),
            max_acquired: self.int(fields::MAX_ACQUIRED).unwrap_or(limits::MAX_ACQUIRED.default),
            progress: self.bytes(fields::PROGRESS).and_then(decode),
            result: self.bytes(fields::RESULT).and_then(decode),
            result_dropped: self.bytes(fields::RESULT).is_some_and(is_dropped),
            errors,
            created_at: self.require(fields::CREATED_AT, self.time(fields::CREATED_AT))?,
            // A task that waits for another's end has no time yet.
            run_at: self.time(fields::RUN_AT).filter(|_| after.is_none()),
            after: after.filter(|_| state == State::Scheduled),
            expires_at: self.time(fields::EXPIRES_AT),
            finished_at: self.time(fields::FINISHED_AT).filter(|_| state.has_ended()),
            worker: self.text(fields::WORKER).map(str::to_owned),
            lease_until: self.time(fields::LEASE_UNTIL).filter(|_| leased),
            cancel_requested: leased && self.bytes(fields::CANCEL_REQUESTED).is_some(),
        })
    }

    /// Decodes the task as its worker gets it; `None` unless it is leased.
    pub(super) fn claimed(&self) -> Result<Option<ClaimedTask>> {
        let task = self.task()?;
        let Some(lease_until) = task.lease_until else { return Ok(None) };
        let lease = self.require(fields::LEASE_TOKEN, self.bytes(fields::LEASE_TOKEN).and_then(Token::from_bytes))?;
        Ok(Some(ClaimedTask {
            id: task.id,
            queue: task.queue,
            slot: task.slot,
            priority: task.priority,
            payload: task.payload,
            attributes: task.attributes,
            attempt: task.attempts.saturating_add(1),
            max_attempts: task.max_attempts,
            progress: task.progress,
            created_at: task.created_at,
            expires_at: task.expires_at,
            lease,
            lease_until,
        }))
    }
}

/// Decodes a task from the reply of the claim script.
pub(super) fn decode_claimed(
    mut fields: ReplyReader,
    id: TaskId,
    queue: QueueName,
    lease_until: TimestampMs,
    lease: Token,
) -> Result<ClaimedTask> {
    let slot = u16::try_from(fields.int()?).ok().and_then(Slot::new).ok_or_else(|| malformed(&id, "no slot"))?;
    let priority = priority_in_range(fields.int()?).ok_or_else(|| malformed(&id, "no priority"))?;
    let (attributes, payload) =
        decode_document(&fields.bytes()?).ok_or_else(|| malformed(&id, "its document is unreadable"))?;
    let attempts = u32::try_from(fields.int()?).unwrap_or(0);
    let max_attempts = u32::try_from(fields.int()?).unwrap_or(0);
    let progress = decode(&fields.bytes()?);
    let created_at = TimestampMs(fields.int()?);
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_out_of_range_are_rejected_or_clamped() {
        let id = TaskId::from_bytes(&[7; 16]).unwrap();
        let hash = |priority: &str, attempts: &str| {
            let fields = [
                (fields::STATE, "leased"),
                (fields::QUEUE, "q"),
                (fields::SLOT, "1"),
                (fields::PRIORITY, priority),
                (fields::ATTEMPTS, attempts),
                (fields::CREATED_AT, "1"),
                (fields::DOCUMENT, "1{}"),
            ];
            let lease = [(fields::LEASE_TOKEN, "0123456789abcdef"), (fields::LEASE_UNTIL, "2")];
            let pairs = fields.into_iter().chain(lease);
            let text = |text: &str| Value::BulkString(text.into());
            Value::Map(pairs.map(|(name, value)| (text(name), text(value))).collect())
        };
        let fields = |priority, attempts| TaskHash::parse(id, hash(priority, attempts)).unwrap().unwrap();
        assert!(fields("9", "0").task().is_ok());
        assert!(fields("10", "0").task().is_err());
        assert_eq!(fields("9", "4294967295").claimed().unwrap().unwrap().attempt, u32::MAX);
    }
}
