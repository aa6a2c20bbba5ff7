//! A task's hash: its fields by their names in the table, those in records included.

use std::collections::HashMap;

use deadpool_redis::redis::Value;

use super::error::Result;
use super::layout::{self, Decoded, Record};
use super::opaque::{decode, decode_document, decode_error, is_dropped};
use super::record::{fields, malformed, priority_in_range};
use super::redis::reply::{parse_int, read_list};
use crate::domain::digest::KeyDigest;
use crate::domain::id::TaskId;
use crate::domain::limits;
use crate::domain::queue::QueueName;
use crate::domain::slot::Slot;
use crate::domain::state::State;
use crate::domain::task::{ClaimedTask, Task};
use crate::domain::time::TimestampMs;
use crate::domain::token::Token;

/// The records of a task by the stored names of their fields, and the names of the parts of their tails.
pub(super) const RECORDS: [(&str, &Record, &[&str]); 3] = [
    (fields::PLACEMENT, &layout::PLACEMENT, &[fields::KEY_DIGEST, fields::QUEUE]),
    (fields::LEASE, &layout::LEASE, &[fields::WORKER]),
    (fields::ENDING, &layout::ENDING, &[fields::ENDED_LEASE_TOKEN]),
];

/// Returns the bytes of a part of a record's tail.
pub(super) fn tail_part<'a>(record: Decoded<'a>, name: &str) -> &'a [u8] {
    match name {
        fields::KEY_DIGEST => layout::split_placement_tail(record).0,
        fields::QUEUE => layout::split_placement_tail(record).1,
        _ => record.tail(),
    }
}

/// Fields of a task's hash by stored name, without empty ones. Those in a record are found by their names too.
pub(super) struct TaskHash {
    id: TaskId,
    by_name: HashMap<Vec<u8>, Vec<u8>>,
}

impl TaskHash {
    /// Reads the reply to HMGET of these names. Returns `None` if there is none of them.
    pub(super) fn parse_named(id: TaskId, names: &[&str], reply: Value) -> Result<Option<Self>> {
        let mut by_name = HashMap::with_capacity(names.len());
        for (name, value) in names.iter().zip(read_list(reply)?) {
            if !matches!(value, Value::Nil) {
                by_name.insert(name.as_bytes().to_vec(), super::redis::reply::bytes(value)?);
            }
        }
        Ok((!by_name.is_empty()).then_some(TaskHash { id, by_name }))
    }

    /// Reads the reply to HGETALL. Returns `None` if there is no such task.
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

    /// Returns the stored fields, records whole.
    pub(super) fn stored(&self) -> impl Iterator<Item = (&[u8], &[u8])> {
        self.by_name.iter().map(|(name, value)| (name.as_slice(), value.as_slice()))
    }

    /// Returns the name of the task in messages.
    pub(super) fn name(&self) -> String {
        format!("task {}", self.id)
    }

    /// Returns the record that holds the field, if it is readable, and the place of the field in it, `None` for its tail.
    fn record_of(&self, name: &str) -> Option<(Decoded<'_>, Option<usize>)> {
        let (stored, field) = name.split_once(':')?;
        let (_, record, tail) = RECORDS.iter().find(|(of_record, ..)| *of_record == stored)?;
        let decoded = record.decode(self.by_name.get(stored.as_bytes())?).ok()?;
        let place = record.fields.iter().position(|of_record| of_record.name == field);
        (place.is_some() || tail.contains(&name)).then_some((decoded, place))
    }

    /// Returns the bytes of a field. A number in a record has none.
    pub(super) fn bytes(&self, name: &str) -> Option<&[u8]> {
        if let Some((record, place)) = self.record_of(name) {
            let bytes = place.map_or_else(|| tail_part(record, name), |place| record.bytes_at(place));
            return (!bytes.is_empty()).then_some(bytes);
        }
        // The claim id of an earlier lease stays behind.
        if name == fields::CLAIM_DIGEST && self.int(fields::HAS_CLAIM) != Some(1) {
            return None;
        }
        self.by_name.get(name.as_bytes()).map(Vec::as_slice)
    }

    pub(super) fn text(&self, name: &str) -> Option<&str> {
        std::str::from_utf8(self.bytes(name)?).ok()
    }

    /// Returns the number in a field. A time of 0 in a record is none.
    pub(super) fn int(&self, name: &str) -> Option<i64> {
        let Some((record, place)) = self.record_of(name) else { return parse_int(self.bytes(name)?) };
        let number = i64::try_from(record.uint(place?)).ok()?;
        (number != 0 || !name.ends_with("_at")).then_some(number)
    }

    fn require<T>(&self, name: &str, value: Option<T>) -> Result<T> {
        value.ok_or_else(|| malformed(&self.id, &format!("field {name} is missing or unreadable")))
    }

    /// Returns a number; an error if the field is missing or not a number.
    pub(super) fn required_int(&self, name: &str) -> Result<i64> {
        self.require(name, self.int(name))
    }

    /// Returns the token of the last lease, `None` if there was none.
    pub(super) fn lease(&self) -> Option<Token> {
        self.bytes(fields::LEASE_TOKEN).and_then(Token::from_bytes)
    }

    /// Returns the worker of the last lease, an empty text if there was none.
    pub(super) fn worker(&self) -> String {
        self.bytes(fields::WORKER).map(|worker| String::from_utf8_lossy(worker).into_owned()).unwrap_or_default()
    }

    /// Returns the number of failed attempts.
    pub(super) fn attempts(&self) -> u32 {
        self.u32_or_zero(fields::ATTEMPTS)
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

    /// Returns the digest of the routing key, `None` if the task has no key.
    pub(super) fn key_digest(&self) -> Option<KeyDigest> {
        self.bytes(fields::KEY_DIGEST).and_then(KeyDigest::from_bytes)
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
        let last = self.int(fields::ERROR_COUNT).unwrap_or(0);
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
            attempts: self.attempts(),
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
        let lease = self.require(fields::LEASE_TOKEN, self.lease())?;
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

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;
    use crate::store::record::FIELDS;

    #[test]
    fn fields_of_records_are_in_the_table() {
        let mut in_records = Vec::new();
        for (stored, record, tail) in RECORDS {
            in_records.extend(record.fields.iter().map(|field| format!("{stored}:{}", field.name)));
            in_records.extend(tail.iter().map(|part| (*part).to_owned()));
        }
        let in_table: Vec<&str> =
            FIELDS.iter().map(|field| field.stored).filter(|stored| stored.contains(':')).collect();
        assert_eq!(in_records.iter().collect::<HashSet<_>>().len(), in_records.len());
        assert_eq!(in_records.iter().map(String::as_str).collect::<HashSet<_>>(), in_table.into_iter().collect());
    }

    #[test]
    fn record_that_is_out_of_range_or_unreadable_is_rejected() {
        let id = TaskId::from_bytes(&[7; 16]).unwrap();
        let task = |priority, slot, lease: &[u8]| {
            let numbers = [priority, slot, 5, 1000, layout::KEYLESS, 1, 1, 1].map(layout::Value::Uint);
            let fields = [
                (fields::STATE, b"leased".to_vec()),
                (fields::PLACEMENT, layout::PLACEMENT.encode(&numbers, b"q")),
                (fields::LEASE, lease.to_vec()),
                (fields::DOCUMENT, b"{}".to_vec()),
            ];
            let pairs = fields.map(|(name, value)| (Value::BulkString(name.into()), Value::BulkString(value)));
            TaskHash::parse(id, Value::Map(pairs.into())).unwrap().unwrap()
        };
        let until = [layout::Value::Bytes(b"0123456789abcdef"), layout::Value::Uint(2)];
        let lease = layout::LEASE.encode(&until, b"w");
        assert_eq!(task(9, 16_383, &lease).claimed().unwrap().unwrap().attempt, 1001);
        assert!(task(10, 0, &lease).task().is_err());
        assert!(task(0, 16_384, &lease).task().is_err());
        assert!(task(0, 0, &lease[1..]).claimed().unwrap().is_none());
        assert!(task(0, 0, &lease[1..]).lease().is_none());
    }
}
