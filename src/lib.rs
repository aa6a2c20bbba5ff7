//! Slotwheel: an HTTP task dispatcher over Redis.
//!
//! In reading order, from the ground floor up:
//!
//! - [`domain`]: the words and rules of tasks, slots and leases. No I/O, no clock.
//! - [`config`]: settings, as written and as meant.
//! - [`measure`]: instruments: counters and histograms that may stand on any path.
//! - [`spans`]: what a tracing system is told of tasks.
//! - [`store`]: the only code that speaks Redis. One transition, one script.
//! - [`dispatch`]: waiters in memory, one pump per shard, gathering of what comes in together.
//! - [`upkeep`]: what must happen without anybody asking: delays, leases, deadlines, retention.
//! - [`http_server`]: connections, their limits, and the parts of HTTP that no route concerns.
//! - [`api`]: routes, JSON, and problem documents.
//! - [`app`]: wiring. [`cli`]: the command line.

pub mod api;
pub mod app;
pub mod cli;
pub mod config;
pub mod dispatch;
pub mod domain;
pub mod http_server;
pub mod metrics;
pub mod spans;
pub mod store;
pub mod upkeep;
