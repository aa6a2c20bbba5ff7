//! The settings of a queue as fields of a Redis hash: the master copy in the first shard, and a copy in each shard.
//!
//! A new setting is one more field here. Scripts store the encoded fields unread; a script that obeys a setting reads
//! its field in the shard's copy.

use deadpool_redis::redis::Value;

use super::error::Result;
use super::redis::reply::ReplyReader;
use crate::domain::queue::QueueSettings;

/// The names of the fields, in the order of [`decode`].
pub(super) const FIELDS: [&str; 1] = ["paused"];

/// Returns the fields with their values, for HSET.
pub(super) fn encode(settings: &QueueSettings) -> [(&'static str, String); FIELDS.len()] {
    let QueueSettings { paused } = settings;
    [("paused", u8::from(*paused).to_string())]
}

/// Decodes the values of [`FIELDS`]. A missing value is the default.
pub(super) fn decode(values: &mut ReplyReader) -> Result<QueueSettings> {
    Ok(QueueSettings { paused: is_set(values.value()?) })
}

/// Combines the copies of two shards while a change is being applied: a queue is paused if it is paused in any shard.
pub(super) fn merge(one: QueueSettings, other: QueueSettings) -> QueueSettings {
    QueueSettings { paused: one.paused || other.paused }
}

fn is_set(value: Value) -> bool {
    matches!(value, Value::BulkString(flag) if flag == b"1")
}
