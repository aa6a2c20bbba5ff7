//! Task ids: UUIDv7 whose last 14 bits are a slot, so that an id alone identifies its task's shard.

use std::fmt;

use uuid::Uuid;

use super::slot::{SLOT_COUNT, Slot};
use super::time::TimestampMs;

/// The id of a task. No order depends on it.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct TaskId(Uuid);

impl TaskId {
    /// Returns the id of a new UUIDv7 and the slot to encode.
    pub fn new(uuid: Uuid, slot: Slot) -> Self {
        let mask = u128::from(SLOT_COUNT - 1);
        TaskId(Uuid::from_u128((uuid.as_u128() & !mask) | u128::from(slot.number())))
    }

    /// Returns the slot encoded in the id.
    pub fn slot(&self) -> Slot {
        let low_bits = (self.0.as_u128() & u128::from(SLOT_COUNT - 1)) as u16;
        Slot::from_low_bits(low_bits)
    }

    /// Returns the creation time of the id, by the clock of the server that created it: for display, not for decisions.
    pub fn created_at(&self) -> TimestampMs {
        let unix_time = self.0.get_timestamp().map_or((0, 0), |timestamp| timestamp.to_unix());
        TimestampMs(unix_time.0 as i64 * 1000 + i64::from(unix_time.1 / 1_000_000))
    }

    /// Parses the hyphenated form of the API, in lower or upper case; `None` for any other form.
    pub fn parse(text: &str) -> Option<Self> {
        if text.len() != 36 {
            return None;
        }
        Uuid::try_parse(text).ok().map(TaskId)
    }

    /// Returns the id with these bytes; `None` unless there are 16.
    pub fn from_bytes(bytes: &[u8]) -> Option<Self> {
        Uuid::from_slice(bytes).ok().map(TaskId)
    }

    /// Returns the id as stored in Redis: 16 bytes.
    pub fn as_bytes(&self) -> &[u8; 16] {
        self.0.as_bytes()
    }
}

impl fmt::Display for TaskId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.as_hyphenated().fmt(f)
    }
}

impl fmt::Debug for TaskId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn task_id_keeps_its_slot_and_is_a_uuid_v7(number in 0u16..16384) {
            let slot = Slot::new(number).unwrap();
            let id = TaskId::new(Uuid::now_v7(), slot);
            prop_assert_eq!(id.slot(), slot);
            prop_assert_eq!(id.0.get_version_num(), 7);
            prop_assert_eq!(TaskId::parse(&id.to_string()), Some(id));
            prop_assert_eq!(TaskId::from_bytes(id.as_bytes()), Some(id));
        }
    }

    #[test]
    fn task_id_is_read_only_in_hyphenated_form() {
        assert!(TaskId::parse("0190c7a05dcb7b6f8d6e2f1f3a4b5c6d").is_none());
        assert!(TaskId::parse("{0190c7a0-5dcb-7b6f-8d6e-2f1f3a4b5c6d}").is_none());
        assert!(TaskId::parse("0190c7a0-5dcb-7b6f-8d6e-2f1f3a4b5c6d").is_some());
    }
}
