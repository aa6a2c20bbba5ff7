//! The settings of a queue as fields of a Redis hash: the master copy in the first shard, and a copy in each shard.
//!
//! A new setting is one more row here. Scripts store the encoded fields unread; a script that obeys a setting reads its
//! field in the shard's copy.

use deadpool_redis::redis::Value;

use super::error::Result;
use super::redis::reply::ReplyReader;
use crate::domain::queue::QueueSettings;

/// Defines the record. A row reads: setting, its type, its encoding, its decoding, and how the copies of two shards
/// combine while a change is being applied.
macro_rules! stored_settings {
    ($($(#[doc = $doc:literal])* $name:ident($type:ty): $encode:path, $decode:path, $merge:path;)*) => {
        /// The names of the fields, in the order of [`decode`].
        pub(super) const FIELDS: [&str; [$(stringify!($name)),*].len()] = [$(stringify!($name)),*];

        impl SettingChange {
            $(
                $(#[doc = $doc])*
                pub fn $name(value: $type) -> Self {
                    SettingChange { field: stringify!($name), value: $encode(value) }
                }
            )*
        }

        /// Returns the fields with their values, for HSET.
        pub(super) fn encode(settings: &QueueSettings) -> [SettingChange; FIELDS.len()] {
            let QueueSettings { $($name),* } = *settings;
            [$(SettingChange::$name($name)),*]
        }

        /// Decodes the values of [`FIELDS`]. A missing value is the default.
        pub(super) fn decode(values: &mut ReplyReader) -> Result<QueueSettings> {
            Ok(QueueSettings { $($name: $decode(values.value()?),)* })
        }

        /// Combines the copies of two shards.
        pub(super) fn merge(one: QueueSettings, other: QueueSettings) -> QueueSettings {
            QueueSettings { $($name: $merge(one.$name, other.$name),)* }
        }
    };
}

/// A new value of one setting: a field and its value.
#[derive(Debug)]
pub struct SettingChange {
    pub(super) field: &'static str,
    pub(super) value: String,
}

stored_settings! {
    /// Pauses or resumes the queue. A queue is paused if it is paused in any shard.
    paused(bool): flag, is_set, bool::max;
}

fn flag(value: bool) -> String {
    u8::from(value).to_string()
}

fn is_set(value: Value) -> bool {
    matches!(value, Value::BulkString(flag) if flag == b"1")
}
