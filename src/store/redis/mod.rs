//! Speaks Redis: connections, calls, scripts, replies, pub/sub, replication, and the embedded server.
//!
//! `topology` opens every connection to a master; `client` sends commands and retries them.

pub mod client;
pub mod config;
pub mod embedded;
mod machine_memory;
pub mod preflight;
pub(super) mod pubsub;
pub mod replication;
pub(super) mod reply;
pub mod script;
mod topology;
