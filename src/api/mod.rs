//! The only code that knows HTTP and JSON.
//!
//! `routes` is the one table. A handler takes apart (`extract`, `object`), makes one call, matches the outcome
//! and answers (`shapes`, `reply`, [`problem`]).

pub mod accept;
mod batch;
mod claims;
mod docs;
mod events;
mod extract;
#[cfg(any(test, fuzzing))]
#[doc(hidden)]
pub mod fuzz;
mod health;
mod items;
mod listing;
mod metrics;
mod object;
#[cfg(feature = "pieces")]
#[doc(hidden)]
pub mod pieces;
pub mod problem;
mod queues;
mod reply;
mod reports;
mod routes;
mod scan;
mod shapes;
mod slots;
mod submit;
mod tasks;

use std::sync::Arc;

use crate::config::Durability;
use crate::dispatch::Dispatch;
use crate::store::Store;
use accept::Door;

pub use docs::CONTRACT;
pub use extract::Peer;
pub use routes::{router, table};

/// What handlers work with.
#[derive(Clone, Debug)]
pub struct Api {
    /// The engine.
    pub dispatch: Arc<Dispatch>,
    /// What an accepted submit survives.
    pub durability: Durability,
    /// Through which requests come.
    pub door: Arc<Door>,
}

impl Api {
    fn store(&self) -> &Store {
        self.dispatch.store()
    }
}
