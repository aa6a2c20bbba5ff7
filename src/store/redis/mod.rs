//! The Redis client: connections, scripts, replies, pub/sub, replication, the embedded server and its preflight checks.

pub mod client;
pub mod embedded;
pub mod preflight;
pub(super) mod pubsub;
pub mod replication;
pub(super) mod reply;
pub mod script;
