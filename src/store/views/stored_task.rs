//! A task as it is stored, in words.

use deadpool_redis::redis::cmd;

use crate::domain::id::TaskId;
use crate::domain::time::TimestampMs;
use crate::domain::token::Token;
use crate::store::error::Result;
use crate::store::layout::{Decoded, Kind, Record};
use crate::store::record::FIELDS;
use crate::store::redis::reply::parse_int;
use crate::store::shard::Shard;
use crate::store::task_hash::{RECORDS, TaskHash, tail_part};

/// Bytes of a value that are shown.
const MAX_SHOWN_BYTES: usize = 200;

/// A stored value.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct StoredValue {
    /// The name of the field in Redis; in a record behind that of the record.
    pub name: String,
    /// The value.
    pub value: String,
    /// Its meaning.
    pub meaning: &'static str,
}

/// Returns the values of a task in the order of their names, those that cannot be read too. `None`: there is no such task.
///
/// # Errors
/// [`Unexpected`](crate::store::Error::Unexpected) if its key has another type.
pub async fn stored_task(shard: &Shard, id: TaskId) -> Result<Option<Vec<StoredValue>>> {
    let reply = shard.send(cmd("HGETALL").arg(shard.keys.task(&id))).await?;
    let Some(task) = TaskHash::parse(id, reply)? else { return Ok(None) };
    let mut values = Vec::new();
    for (name, value) in task.stored() {
        let name = String::from_utf8_lossy(name).into_owned();
        let Some((_, record, tail)) = RECORDS.iter().find(|(stored, ..)| *stored == name) else {
            // Errors are e0 to e9.
            let table_name = name.trim_end_matches(|c: char| c.is_ascii_digit());
            let known = FIELDS.iter().find(|field| field.stored == table_name);
            let meaning = known.map_or("unknown: a later release wrote it", |field| field.holds);
            let value = match parse_int(value) {
                Some(number) if meaning.starts_with("time") => shown_time(number),
                _ => shown(value),
            };
            values.push(StoredValue { name, value, meaning });
            continue;
        };
        match record.decode(value) {
            Ok(decoded) => values.extend(record_values(record, tail, decoded)),
            Err(error) => {
                values.push(StoredValue { name, value: format!("{}: {error}", shown(value)), meaning: "unreadable" });
            }
        }
    }
    values.sort_by(|one, other| one.name.cmp(&other.name));
    Ok(Some(values))
}

/// Returns the values of a record, each behind the name of the record.
fn record_values(record: &Record, tail: &[&str], decoded: Decoded<'_>) -> Vec<StoredValue> {
    let fields = record.fields.iter().enumerate().map(|(place, field)| {
        let value = match field.kind {
            Kind::Bytes => {
                Token::from_bytes(decoded.bytes_at(place)).map(|token| token.to_string()).unwrap_or_default()
            }
            Kind::Uint => {
                let number = i64::try_from(decoded.uint(place)).unwrap_or(i64::MAX);
                let is_time = field.name.ends_with("_at") || field.name.ends_with("_until");
                if is_time { shown_time(number) } else { number.to_string() }
            }
        };
        StoredValue { name: format!("{}.{}", record.name, field.name), value, meaning: field.meaning }
    });
    let tail = tail.iter().map(|name| StoredValue {
        name: format!("{}.{}", record.name, name.rsplit(':').next().unwrap_or(name)),
        value: shown(tail_part(decoded, name)),
        meaning: FIELDS.iter().find(|field| field.stored == *name).map_or("", |field| field.holds),
    });
    fields.chain(tail.filter(|value| !value.value.is_empty())).collect()
}

/// Returns a time in ms with the same in words.
fn shown_time(number: i64) -> String {
    if number == 0 { "0".to_owned() } else { format!("{number} ({})", TimestampMs(number)) }
}

/// Returns the start of a value: as text if it is one, else in hexadecimal.
fn shown(value: &[u8]) -> String {
    let start = value.get(..MAX_SHOWN_BYTES).unwrap_or(value);
    let text = std::str::from_utf8(start).ok().filter(|text| !text.chars().any(char::is_control));
    let text = text.map_or_else(|| start.iter().map(|byte| format!("{byte:02x}")).collect(), str::to_owned);
    match value.len() - start.len() {
        0 => text,
        more => format!("{text}… and {more} bytes"),
    }
}
