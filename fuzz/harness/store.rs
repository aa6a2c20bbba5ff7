//! Harness of the fuzz targets `replies` and `records`: decodes arbitrary replies of Redis, and requires a valid value
//! or `Error::Unexpected`. Compiled only for fuzzing and tests.

use deadpool_redis::redis::Value;
use serde_json::value::RawValue;

use super::error::{Error, Result};
use super::layout;
use super::notify::events;
use super::opaque::{decode_document, encode_document};
use super::ops::{self, claim, submit, subscribe_completion};
use super::record::{FIELDS, fields};
use super::redis::reply;
use super::task_hash::TaskHash;
use super::views::{lease_details, next_due, page, queue_records, tasks};
use crate::domain::id::TaskId;
use crate::domain::limits;
use crate::domain::queue::QueueName;
use crate::domain::token::Token;

/// Maximum size of an error text. It is logged, and the reply may have been large.
const MAX_ERROR_BYTES: usize = 1024;

/// Words that scripts answer with, and other texts that mean something.
const REPLY_TAGS: &[&str] = &[
    "created",
    "already_stored",
    "existing",
    "replaced",
    "too_far",
    "past_expiry",
    "cancelled",
    "requested",
    "ended",
    "unknown",
    "completed",
    "repeated",
    "lease_lost",
    "failed",
    "released",
    "extended",
    "open",
    "already_cancelled",
    "mismatch",
    "deleted",
    "not_allowed",
    "retried",
    "ready",
    "leased",
    "",
];

/// Input bytes as successive choices; zeros after the last byte.
struct ByteSource<'a>(&'a [u8]);

impl ByteSource<'_> {
    fn byte(&mut self) -> u8 {
        let Some((first, rest)) = self.0.split_first() else { return 0 };
        self.0 = rest;
        *first
    }

    fn bytes(&mut self, count: usize) -> Vec<u8> {
        let (head, rest) = self.0.split_at(count.min(self.0.len()));
        self.0 = rest;
        head.to_vec()
    }

    fn number(&mut self) -> i64 {
        let mut bytes = [0; 8];
        bytes.fill_with(|| self.byte());
        i64::from_le_bytes(bytes)
    }

    fn short_bytes(&mut self) -> Vec<u8> {
        let count = self.byte().into();
        self.bytes(count)
    }

    fn text(&mut self) -> String {
        String::from_utf8_lossy(&self.short_bytes()).into_owned()
    }

    fn reply_tag(&mut self) -> String {
        let index = usize::from(self.byte()) % REPLY_TAGS.len();
        REPLY_TAGS.get(index).copied().unwrap_or_default().to_owned()
    }

    fn values(&mut self, depth: usize) -> Vec<Value> {
        (0..self.byte() % 24).map(|_| self.value(depth + 1)).collect()
    }

    /// Returns an arbitrary tree of values.
    fn value(&mut self, depth: usize) -> Value {
        let kinds = if depth < 6 { 16 } else { 10 };
        match self.byte() % kinds {
            0 => Value::Nil,
            1 => Value::Int(self.number()),
            2 => Value::Int((self.byte() as i8).into()),
            3 => Value::BulkString(self.short_bytes()),
            4 => Value::BulkString(self.reply_tag().into_bytes()),
            5 => Value::BulkString(self.bytes(16)),
            6 => Value::SimpleString(self.text()),
            7 => Value::Double(f64::from_bits(self.number() as u64)),
            8 => Value::Boolean(self.byte() & 1 == 1),
            9 => Value::Okay,
            10 => Value::Set(self.values(depth)),
            11 => {
                let pairs = (0..self.byte() % 24).map(|_| (self.value(depth + 1), self.value(depth + 1)));
                Value::Map(pairs.collect())
            }
            _ => Value::Array(self.values(depth)),
        }
    }
}

/// Returns the decoded value. An error must be `Error::Unexpected` with a short text.
fn check_result<T>(checked: Result<T>) -> Option<T> {
    match checked {
        Ok(read) => Some(read),
        Err(Error::Unexpected(why)) => {
            assert!(why.len() <= MAX_ERROR_BYTES, "{} bytes", why.len());
            None
        }
        Err(
            error @ (Error::Unavailable(_)
            | Error::Full(_)
            | Error::Disk(_)
            | Error::Unauthenticated(_)
            | Error::Denied(_)
            | Error::DataLoss(_)
            | Error::Stopping
            | Error::Unconfirmed(_)),
        ) => {
            assert_eq!(error.to_string(), "", "an answer was there");
            None
        }
    }
}

/// Decodes replies of scripts and commands.
pub fn replies(bytes: &[u8]) {
    let value = ByteSource(bytes).value(0);
    let Some(id) = TaskId::from_bytes(&[7; 16]) else { return };
    let copy = || value.clone();
    check_result(reply::text(copy()));
    check_result(reply::int(copy()));
    let items = check_result(reply::read_list(copy())).map_or(0, |items| items.len());
    for checked in ops::parse_as_each(&value, items) {
        check_result(checked);
    }
    check_result(subscribe_completion::parse_reply(copy()));
    check_result(submit::parse_hand_offs(copy()));
    check_result(page::decode(copy()));
    check_result(next_due::decode(copy()));
    check_result(lease_details::decode_lease_details(id, copy()));
    check_result(lease_details::decode_ready_wait(id, copy()));
    check_result(events::parse_events(copy()));
    if let Some(Some(holding)) = check_result(tasks::decode_lease_state(id, copy())) {
        let _: i64 = holding.retry_delay_ms(0.5);
    }
    check_result(queue_records::decode_queue(&value));
    check_result(queue_records::decode_shard(&value));
    let (queues, tokens) = ([QueueName::default_queue()], [Token::new(1), Token::new(2)]);
    if let Some(ops::claim::ClaimReply { tasks, .. }) = check_result(claim::parse_reply(copy(), &queues, &tokens)) {
        for (_, task) in tasks {
            assert!(i64::from(task.priority) <= limits::PRIORITY.max);
            assert!(task.attempt > 0);
        }
    }
}

/// Decodes hashes of tasks: a valid hash whose fields are overwritten by choice of the input. In a record, the input changes
/// bytes.
pub fn records(bytes: &[u8]) {
    let mut choices = ByteSource(bytes);
    let as_map = choices.byte() & 1 == 1;
    let (now, until) = (layout::Value::Uint(1_700_000_000_000), layout::Value::Uint(1_700_000_060_000));
    let [zero, seven] = [0, 7].map(layout::Value::Uint);
    let placement = layout::PLACEMENT.encode(&[zero, seven, seven, zero, zero, now, now, seven], b"mail");
    let lease = layout::LEASE.encode(&[layout::Value::Bytes(&[7; 16]), until, now, zero, seven, seven, zero], b"w");
    let ending = layout::ENDING.encode(&[], b"");
    let valid: [(&str, &[u8]); 4] = [
        (fields::STATE, b"leased"),
        (fields::PLACEMENT, &placement),
        (fields::LEASE, &lease),
        (fields::DOCUMENT, b"1{}"),
    ];
    let records: [(&str, &[u8]); 3] =
        [(fields::PLACEMENT, &placement), (fields::LEASE, &lease), (fields::ENDING, &ending)];
    let errors = [0, 1, 9].map(|index| format!("{}{index}", fields::ERROR));
    let unknown = ["unknown".to_owned(), String::new()];
    let names: Vec<String> = FIELDS.iter().map(|field| field.stored.to_owned()).chain(errors).chain(unknown).collect();
    let mut pairs: Vec<(Value, Value)> = Vec::new();
    for (name, value) in valid {
        pairs.push((Value::BulkString(name.into()), Value::BulkString(value.into())));
    }
    while !choices.0.is_empty() {
        let index = usize::from(choices.byte()) % names.len();
        let name = names.get(index).cloned().unwrap_or_default();
        let mut value = choices.short_bytes();
        if let Some((_, record)) = records.iter().find(|(stored, _)| *stored == name) {
            let changes = std::mem::replace(&mut value, record.to_vec());
            value.iter_mut().skip(1).zip(changes).for_each(|(byte, change)| *byte ^= change);
        }
        pairs.push((Value::BulkString(name.into()), Value::BulkString(value)));
    }
    let answer = match as_map {
        true => Value::Map(pairs),
        false => Value::Array(pairs.into_iter().flat_map(|(name, value)| [name, value]).collect()),
    };
    let Some(id) = TaskId::from_bytes(&[7; 16]) else { return };
    let Some(Some(fields)) = check_result(TaskHash::parse(id, answer)) else { return };
    if let Some(task) = check_result(fields.task()) {
        assert!(i64::from(task.priority) <= limits::PRIORITY.max);
        assert!(task.errors.len() <= limits::MAX_ERRORS as usize);
        for time in [Some(task.created_at), task.run_at, task.expires_at, task.finished_at, task.lease_until] {
            assert!(time.is_none_or(|time| time.to_string().len() <= 32));
        }
        let labels = task.attributes;
        let decoded = check_result(encode_document(&labels, &task.payload)).and_then(|sealed| decode_document(&sealed));
        let is_same =
            decoded.is_some_and(|(decoded, payload)| decoded == labels && payload.get() == task.payload.get());
        assert!(is_same, "a document does not read back");
    }
    if let Some(Some(claimed)) = check_result(fields.claimed()) {
        assert!(claimed.attempt > 0);
        assert!(serde_json::from_str::<&RawValue>(claimed.payload.get()).is_ok());
    }
}

#[cfg(test)]
mod tests {
    use crate::domain::fuzz::replay;

    #[test]
    fn reply_and_record_seeds_hold() {
        replay("replies", super::replies);
        replay("records", super::records);
    }
}
