//! The feed of task events: a ring buffer per server, and the subscriptions that read it.

pub(super) mod ring_buffer;
pub(super) mod subscriptions;
