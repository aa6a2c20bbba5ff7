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
mod overviews;
#[cfg(feature = "pieces")]
#[doc(hidden)]
pub mod pieces;
pub mod problem;
mod queues;
mod reply;
mod reports;
mod request_id;
mod routes;
mod scan;
mod shapes;
mod slots;
mod stats;
mod submit;
mod tasks;
mod trace_context;
mod workers;

use std::sync::Arc;

use crate::config::Durability;
use crate::dispatch::Dispatch;
use crate::store::Store;
use crate::upkeep::Upkeep;
use accept::Door;

pub use docs::CONTRACT;
pub use extract::Peer;
pub use metrics::Meters;
pub use overviews::Overviews;
pub use request_id::RequestId;
pub use routes::{router, table};

/// What handlers work with.
#[derive(Clone, Debug)]
pub struct Api {
    /// The engine.
    pub dispatch: Arc<Dispatch>,
    /// What is done unasked.
    pub upkeep: Arc<Upkeep>,
    /// What an accepted submit survives.
    pub durability: Durability,
    /// Through which requests come.
    pub door: Arc<Door>,
    /// What passed through the router.
    pub meters: Arc<Meters>,
    /// How the data set stands.
    pub overviews: Arc<Overviews>,
}

impl Api {
    fn store(&self) -> &Store {
        self.dispatch.store()
    }
}
