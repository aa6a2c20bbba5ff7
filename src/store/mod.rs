//! The only code that speaks Redis.
//!
//! [`client`] holds the connections, [`Shard`] is what every operation works on. A transition is one script in
//! [`ops`], reading is in [`views`], [`signal`] and [`change`] hear what scripts publish, [`audit`] checks the whole.

pub mod audit;
pub mod circuit_breaker;
pub mod dataset;
pub mod error;
#[cfg(any(test, fuzzing))]
#[doc(hidden)]
pub mod fuzz;
pub mod invariant;
pub mod keys;
pub mod metrics;
pub mod notify;
pub mod ops;
#[cfg(feature = "pieces")]
#[doc(hidden)]
pub mod pieces;
pub mod queues;
pub mod record;
pub mod redis;
pub mod shard;
pub mod views;

pub use error::{Error, Result};
pub use redis::client::Client;
pub use shard::{Caller, Shard, Store};
