//! A task as a Redis hash: the only Rust file that names its fields.
//!
//! | field | holds | | field | holds |
//! |---|---|---|---|---|
//! | S | state | | t | token of the last lease handed out |
//! | q | queue | | u | until when it holds, ms |
//! | s | slot | | h | since when, ms |
//! | p | priority | | L | its length as asked for, ms |
//! | n | seq, its place in the slot queue | | W | worker |
//! | c | created at, ms | | C | digest of the claim id |
//! | r | ready at, ms, where that is not c | | k | a client wants it called off |
//! | w | run at, ms | | T | token of the last lease that ended |
//! | x | expires at, ms | | V | verb, state, run_at: the answer that ended it |
//! | X | expires in, ms | | o | somebody waits for its end |
//! | m | max attempts | | f | finished at, ms |
//! | M | max run, ms | | d | document: labels and payload, opaque |
//! | R | retain, ms | | b | backoff, opaque |
//! | a | attempts | | y | result, opaque |
//! | A | acquired | | g | progress, opaque |
//! | D | digest of the dedupe key | | e0..e9 | errors: ms, attempt, opaque report |
//! | Y | until when it holds that key, ms, if not until it ends | | i | r, and since when it stands there, ms: given back |
//!
//! An absent field and an empty one mean the same. Opaque values start with a format byte. A field that is not named
//! here belongs to a later release and is left alone.

use std::collections::HashMap;

use deadpool_redis::redis::Value;
use serde_json::value::RawValue;

use super::error::{Error, Result};
use super::redis::reply::{ReplyReader, parse_int, read_list};
use crate::domain::id::TaskId;
use crate::domain::limits::{self, ValueRange};
use crate::domain::queue::QueueName;
use crate::domain::retry::Backoff;
use crate::domain::slot::Slot;
use crate::domain::state::State;
use crate::domain::task::{Attributes, ClaimedTask, DedupeMode, ErrorReport, NewTask, RawJson, Task, TaskError};
use crate::domain::time::TimestampMs;
use crate::domain::token::Token;

/// Format byte: JSON follows.
const FORMAT_JSON: u8 = b'1';
/// Format byte of a document: the length of the labels in four bytes, the labels, the payload.
const FORMAT_WITH_ATTRIBUTES: u8 = b'2';

fn priority_in_range(number: i64) -> Option<u8> {
    let ValueRange { min, max, .. } = limits::PRIORITY;
    u8::try_from(number).ok().filter(|_| (min..=max).contains(&number))
}

fn malformed(id: &TaskId, problem: &str) -> Error {
    Error::Unexpected(format!("task {id}: {problem}"))
}

/// JSON as an opaque value.
pub(super) fn encode(document: &RawValue) -> Vec<u8> {
    [&[FORMAT_JSON], document.get().as_bytes()].concat()
}

/// What [`seal`] made; `None` for the empty value.
pub(super) fn decode(bytes: &[u8]) -> Option<RawJson> {
    let (&FORMAT_JSON, json) = bytes.split_first()? else { return None };
    RawValue::from_string(String::from_utf8(json.to_vec()).ok()?).ok()
}

pub(super) fn encode_document(labels: &Attributes, payload: &RawValue) -> Result<Vec<u8>> {
    if *labels == Attributes::default() {
        return Ok(encode(payload));
    }
    let labels = serde_json::to_vec(labels).map_err(|error| Error::Unexpected(error.to_string()))?;
    let length = (labels.len() as u32).to_be_bytes();
    Ok([&[FORMAT_WITH_ATTRIBUTES], &length[..], &labels, payload.get().as_bytes()].concat())
}

pub(super) fn decode_document(bytes: &[u8]) -> Option<(Attributes, RawJson)> {
    if bytes.first() == Some(&FORMAT_JSON) {
        return Some((Attributes::default(), decode(bytes)?));
    }
    let (length, rest) = bytes.strip_prefix(&[FORMAT_WITH_ATTRIBUTES])?.split_first_chunk::<4>()?;
    let (labels, payload) = rest.split_at_checked(u32::from_be_bytes(*length) as usize)?;
    let payload = RawValue::from_string(String::from_utf8(payload.to_vec()).ok()?).ok()?;
    Some((serde_json::from_slice(labels).ok()?, payload))
}

/// A report of an error as an opaque value.
pub(super) fn encode_report(report: &ErrorReport) -> Result<Vec<u8>> {
    let json = serde_json::to_vec(report).map_err(|error| Error::Unexpected(error.to_string()))?;
    Ok([&[FORMAT_JSON], &json[..]].concat())
}

fn decode_error(bytes: &[u8]) -> Option<TaskError> {
    let mut parts = bytes.splitn(3, |&byte| byte == b' ');
    let at = TimestampMs(parse_int(parts.next()?)?);
    let attempt = u32::try_from(parse_int(parts.next()?)?).ok()?;
    let report = serde_json::from_slice(parts.next()?.strip_prefix(&[FORMAT_JSON])?).ok()?;
    Some(TaskError { at, attempt, report })
}

/// A backoff as an opaque value.
fn encode_backoff(backoff: &Backoff) -> Result<Vec<u8>> {
    let json = serde_json::to_vec(backoff).map_err(|error| Error::Unexpected(error.to_string()))?;
    Ok([&[FORMAT_JSON], &json[..]].concat())
}

/// The backoff of a task, from its field.
pub(super) fn decode_backoff(bytes: &[u8]) -> Backoff {
    let json = bytes.strip_prefix(&[FORMAT_JSON]);
    json.and_then(|json| serde_json::from_slice(json).ok()).unwrap_or_default()
}

/// The fields of a new task that its submit writes as they are. Where the task may replace another's content, also
/// the empty ones.
pub(super) fn submitted_fields(task: &NewTask) -> Result<Vec<(&'static str, Vec<u8>)>> {
    let NewTask { payload, attributes: labels, max_attempts, backoff, max_run_ms, retain_ms, dedupe, .. } = task;
    let replaces = dedupe.as_ref().is_some_and(|dedupe| match dedupe.mode {
        DedupeMode::Keep => false,
        DedupeMode::Replace | DedupeMode::Debounce => true,
    });
    let mut fields = vec![("d", encode_document(labels, payload)?), ("m", max_attempts.to_string().into())];
    let max_run = if *max_run_ms > 0 { max_run_ms.to_string() } else { String::new() };
    let retain = retain_ms.map(|ms| ms.to_string()).unwrap_or_default();
    let backoff = backoff.as_ref().map(encode_backoff).transpose()?.unwrap_or_default();
    for (name, value) in [("M", max_run.into()), ("R", retain.into()), ("b", backoff)] {
        if replaces || !value.is_empty() {
            fields.push((name, value));
        }
    }
    Ok(fields)
}

/// A hash as HGETALL answers it: its fields by name, empty ones left out.
pub(super) struct TaskHash {
    id: TaskId,
    by_name: HashMap<Vec<u8>, Vec<u8>>,
}

impl TaskHash {
    /// `None` where there is no such task.
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

    /// A number that must be there.
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
        self.require("S", self.text("S").and_then(State::parse))
    }

    pub(super) fn queue(&self) -> Result<QueueName> {
        self.require("q", self.text("q").and_then(QueueName::parse))
    }

    pub(super) fn slot(&self) -> Result<Slot> {
        self.require("s", self.int("s").and_then(|s| u16::try_from(s).ok()).and_then(Slot::new))
    }

    pub(super) fn priority(&self) -> Result<u8> {
        self.require("p", self.int("p").and_then(priority_in_range))
    }

    /// The task.
    pub(super) fn task(&self) -> Result<Task> {
        let document = self.bytes("d").and_then(decode_document);
        let (labels, payload) = self.require("d", document)?;
        let state = self.state()?;
        let mut errors: Vec<TaskError> =
            (0..limits::MAX_ERRORS).filter_map(|index| decode_error(self.bytes(&format!("e{index}"))?)).collect();
        errors.sort_by_key(|error| (error.at, error.attempt));
        let leased = state == State::Leased;
        Ok(Task {
            id: self.id,
            queue: self.queue()?,
            slot: self.slot()?,
            state,
            priority: self.priority()?,
            payload,
            attributes: labels,
            attempts: self.u32_or_zero("a"),
            max_attempts: self.u32_or_zero("m"),
            acquired: self.u32_or_zero("A"),
            progress: self.bytes("g").and_then(decode),
            result: self.bytes("y").and_then(decode),
            errors,
            created_at: self.require("c", self.time("c"))?,
            run_at: self.time("w"),
            expires_at: self.time("x"),
            finished_at: self.time("f").filter(|_| state.has_ended()),
            worker: self.text("W").map(str::to_owned),
            lease_until: self.time("u").filter(|_| leased),
            cancel_requested: leased && self.bytes("k").is_some(),
        })
    }

    /// The task as its holder sees it; `None` unless it is leased.
    pub(super) fn claimed(&self) -> Result<Option<ClaimedTask>> {
        let task = self.task()?;
        let Some(lease_until) = task.lease_until else { return Ok(None) };
        let lease = self.require("t", self.bytes("t").and_then(Token::from_bytes))?;
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

/// A task as the claim script hands it out.
pub(super) fn decode_claimed(
    mut fields: ReplyReader,
    id: TaskId,
    queue: QueueName,
    until: TimestampMs,
    lease: Token,
) -> Result<ClaimedTask> {
    let slot = u16::try_from(fields.int()?).ok().and_then(Slot::new).ok_or_else(|| malformed(&id, "no slot"))?;
    let priority = priority_in_range(fields.int()?).ok_or_else(|| malformed(&id, "no priority"))?;
    let (labels, payload) =
        decode_document(&fields.bytes()?).ok_or_else(|| malformed(&id, "its document cannot be read"))?;
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
        attributes: labels,
        attempt: attempts.saturating_add(1),
        max_attempts,
        progress,
        created_at,
        expires_at,
        lease,
        lease_until: until,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn documents_round_trip_byte_for_byte() {
        let payload = RawValue::from_string(r#"{"a": 12345678901234567890, "b":[ ]}"#.into()).unwrap();
        let key = Attributes { key: Some("k".into()), tags: vec!["t".into()], ..Attributes::default() };
        for labels in [Attributes::default(), key] {
            let (decoded, document) = decode_document(&encode_document(&labels, &payload).unwrap()).unwrap();
            assert_eq!(decoded, labels);
            assert_eq!(document.get(), payload.get());
        }
    }

    #[test]
    fn numbers_out_of_range_are_rejected_or_clamped() {
        let id = TaskId::from_bytes(&[7; 16]).unwrap();
        let hash = |priority: &str, attempts: &str| {
            let fields =
                [("S", "leased"), ("q", "q"), ("s", "1"), ("p", priority), ("a", attempts), ("c", "1"), ("d", "1{}")];
            let lease = [("t", "0123456789abcdef"), ("u", "2")];
            let pairs = fields.into_iter().chain(lease);
            let text = |text: &str| Value::BulkString(text.into());
            Value::Map(pairs.map(|(name, value)| (text(name), text(value))).collect())
        };
        let fields = |priority, attempts| TaskHash::parse(id, hash(priority, attempts)).unwrap().unwrap();
        assert!(fields("9", "0").task().is_ok());
        assert!(fields("10", "0").task().is_err());
        assert_eq!(fields("9", "4294967295").claimed().unwrap().unwrap().attempt, u32::MAX);
    }

    #[test]
    fn record_of_any_bytes_does_not_panic() {
        for bytes in [&b""[..], b"1", b"1{", b"2", b"2\0\0\0\xffx", b"3abc", b"1\xff"] {
            assert!(decode_document(bytes).is_none());
            assert!(decode_error(bytes).is_none());
        }
    }
}
