//! Slotwheel: an HTTP task dispatcher over Redis.
//!
//! In reading order, from the lowest layer up:
//!
//! - [`domain`]: terms and rules of tasks, slots and leases. No I/O, no clock.
//! - [`config`]: settings, as written and as resolved.
//! - [`metrics`]: counters and histograms, cheap enough for every path.
//! - [`background`]: background tasks.
//! - [`logging`]: the writer of the log, which never blocks.
//! - [`degradations`]: conditions in which the server still serves, and of which an operator must know.
//! - [`spans`]: spans of tasks for a tracing system.
//! - [`store`]: the only code that speaks to Redis. Each transition is one script.
//! - [`dispatch`]: waiters in memory, one claim loop per shard, batching of concurrent requests.
//! - [`upkeep`]: background maintenance: delays, leases, deadlines, retention.
//! - [`http_server`]: connections with limits and timeouts.
//! - [`api`]: routes, JSON, problems.
//! - [`app`]: wiring. [`cli`]: the command line.

pub mod api;
pub mod app;
pub mod background;
pub mod cli;
pub mod config;
pub mod degradations;
pub mod dispatch;
pub mod domain;
pub mod http_server;
pub mod logging;
pub mod metrics;
pub mod spans;
pub mod store;
pub mod upkeep;
