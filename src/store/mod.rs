//! The only code that speaks Redis.
//!
//! [`client`] holds the connections, [`Shard`] is what every operation works on. A transition is one script in
//! [`ops`], reading is in [`views`], [`signal`] and [`change`] hear what scripts publish, [`audit`] checks the whole.

pub mod audit;
pub mod change;
pub mod check;
pub mod client;
pub mod error;
pub mod found;
#[cfg(any(test, fuzzing))]
#[doc(hidden)]
pub mod fuzz;
pub mod gate;
mod hearing;
pub mod keys;
pub mod managed;
pub mod meters;
pub mod ops;
#[cfg(feature = "pieces")]
#[doc(hidden)]
pub mod pieces;
pub mod pulse;
pub mod record;
pub mod replicas;
mod reply;
pub mod script;
pub mod shard;
pub mod signal;
pub mod views;

pub use client::Client;
pub use error::{Error, Result};
pub use shard::{Caller, Shard, Store};
