//! The only code that knows HTTP and JSON.
//!
//! `routes` is the one table. A handler takes apart (`extract`, `object`), makes one call, matches the outcome
//! and answers (`shapes`, `reply`, [`problem`]).

mod batch;
mod claims;
mod docs;
mod events;
mod extract;
#[cfg(any(test, fuzzing))]
#[doc(hidden)]
pub mod fuzz;
mod health;
mod json;
mod list;
mod metrics;
#[cfg(feature = "pieces")]
#[doc(hidden)]
pub mod pieces;
pub mod problem;
mod queues;
mod rejection;
mod reports;
mod request_id;
mod routes;
mod slots;
mod stats;
mod status_cache;
mod submit;
mod tasks;
mod trace_context;
mod workers;

use std::sync::Arc;

use crate::config::Durability;
use crate::dispatch::Dispatch;
use crate::http_server::ServerState;
use crate::store::Store;
use crate::upkeep::Upkeep;

pub use docs::CONTRACT;
pub use metrics::Metrics;
pub use rejection::render_rejection;
pub use request_id::RequestId;
pub use routes::{route_table, router};
pub use status_cache::StatusCache;

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
    pub server: Arc<ServerState>,
    /// What passed through the router.
    pub metrics: Arc<Metrics>,
    /// How the data set stands.
    pub status_cache: Arc<StatusCache>,
}

impl Api {
    fn store(&self) -> &Store {
        self.dispatch.store()
    }
}
