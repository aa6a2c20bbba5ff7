//! The store: all data in Redis, and the only code that speaks Redis.
//!
//! A data set is divided into shards. Each function takes a [`Shard`], or the [`Store`] of all shards. Every
//! transition of a task is one script in [`ops`]; [`views`] only read. Messages of scripts arrive through [`notify`],
//! [`redis`] has the client, [`history`] bounds the ended tasks, [`dataset`] detects data loss, and [`audit`] checks and repairs [`invariant`]s.

pub mod audit;
pub mod caller;
pub mod circuit_breaker;
pub mod clock;
pub mod dataset;
pub mod error;
#[cfg(any(test, fuzzing))]
#[doc(hidden)]
#[path = "../../fuzz/harness/store.rs"]
pub mod fuzz;
pub mod history;
pub mod invariant;
pub mod isolation;
pub mod keys;
pub mod layout;
pub mod memory;
pub mod metrics;
pub mod notes;
pub mod notify;
mod opaque;
pub mod ops;
pub mod permissions;
#[cfg(feature = "pieces")]
#[doc(hidden)]
#[path = "../../benches/pieces/store.rs"]
pub mod pieces;
pub mod queues;
pub mod record;
pub mod redis;
pub mod settings;
pub mod shard;
mod task_hash;
pub mod views;

pub use caller::Caller;
pub use error::{Error, Result};
pub use redis::client::Client;
pub use shard::{Shard, Store};
