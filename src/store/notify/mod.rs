//! Messages that scripts publish: wake-ups and task events.

pub mod events;
pub mod wakeups;
