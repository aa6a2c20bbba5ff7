//! Records in `callers`, changed behind the back of the servers.

use deadpool_redis::redis::cmd;
use slotwheel::store::layout::{Kind, PASS, QUEUE, Record, SHARD, Value, queue};

use super::redis::OwnRedis;

/// The kind of the record in a field of `callers`.
fn kind_of(field: &str) -> Option<&'static Record> {
    match field {
        "shard" => Some(&SHARD),
        field => field.starts_with("queue:").then_some(&QUEUE),
    }
}

/// The values of a stored record, zeros if it is missing.
fn values(record: &'static Record, stored: &[u8]) -> Vec<(&'static str, u64)> {
    let zeros = record.encode(&[], &[]);
    let decoded = record.decode(if stored.is_empty() { &zeros } else { stored }).expect("a record");
    let numbers = record.fields.iter().enumerate().filter(|(_, field)| field.kind == Kind::Uint);
    numbers.map(|(place, field)| (field.name, decoded.uint(place))).collect()
}

/// Returns the record with more tasks in a count.
pub fn raised(field: &str, stored: &[u8], count: queue::Field, by: u64) -> Vec<u8> {
    let record = kind_of(field).expect("a record");
    let mut changed = values(record, stored);
    changed[usize::from(count)].1 += by;
    let numbers: Vec<Value<'_>> = changed.into_iter().map(|(_, number)| Value::Uint(number)).collect();
    record.encode(&numbers, stored.get(record.bytes()..).unwrap_or_default())
}

/// Raises a count in a record.
pub async fn raise(redis: &OwnRedis, callers: &[u8], field: &str, count: queue::Field, by: u64) {
    let stored: Option<Vec<u8>> = redis.ask(cmd("HGET").arg(callers).arg(field)).await;
    let changed = raised(field, &stored.unwrap_or_default(), count, by);
    redis.ask::<()>(cmd("HSET").arg(callers).arg(field).arg(changed)).await;
}

/// Shows a record as text, without the time in `due`: that may be earlier than that of the first task. Other fields are
/// returned as they are.
pub fn shown(field: &str, stored: &[u8]) -> Vec<u8> {
    let Some(record) = kind_of(field) else { return stored.to_vec() };
    let values = values(record, stored);
    let passes = values.iter().find(|(name, _)| *name == "passes").map_or(0, |(_, passes)| *passes as usize);
    let passes = stored.get(record.bytes()..record.bytes() + passes * PASS.bytes()).unwrap_or_default();
    let shown = values.into_iter().filter(|(name, _)| *name != "due");
    let shown: String = shown.map(|(name, number)| format!("{name}={number} ")).collect();
    [shown.as_bytes(), passes].concat()
}
