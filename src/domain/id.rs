//! Task ids: UUIDv7 whose last 14 bits are a slot, so that an id alone says where its task lives.

use std::fmt;

use uuid::Uuid;

use super::slot::{SLOT_COUNT, Slot};
use super::time::TimestampMs;

/// The id of a task. Nothing orders by it.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct TaskId(Uuid);

impl TaskId {
    /// The id made from a fresh UUIDv7 and the slot that it shall name.
    pub fn new(uuid: Uuid, slot: Slot) -> Self {
        let mask = u128::from(SLOT_COUNT - 1);
        TaskId(Uuid::from_u128((uuid.as_u128() & !mask) | u128::from(slot.number())))
    }

    /// The slot that the id names.
    pub fn slot(&self) -> Slot {
        let low_bits = (self.0.as_u128() & u128::from(SLOT_COUNT - 1)) as u16;
        Slot::from_low_bits(low_bits)
    }

    /// When the id was made, by the clock of the server that made it: good for showing, not for deciding.
    pub fn created_at(&self) -> TimestampMs {
        let unix_time = self.0.get_timestamp().map_or((0, 0), |timestamp| timestamp.to_unix());
        TimestampMs(unix_time.0 as i64 * 1000 + i64::from(unix_time.1 / 1_000_000))
    }

    /// Reads the hyphenated form that the API shows (upper case is taken too); `None` for anything else.
    pub fn parse(text: &str) -> Option<Self> {
        if text.len() != 36 {
            return None;
        }
        Uuid::try_parse(text).ok().map(TaskId)
    }

    /// The id whose bytes these are; `None` unless there are sixteen.
    pub fn from_bytes(bytes: &[u8]) -> Option<Self> {
        Uuid::from_slice(bytes).ok().map(TaskId)
    }

    /// The id as it stands in Redis: 16 bytes.
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
