//! The feed of task events: one ring buffer per server and its subscriptions.

pub(super) mod ring_buffer;
pub(super) mod subscriptions;
