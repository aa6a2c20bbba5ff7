//! The HTTP API: the only code that knows HTTP and JSON.
//!
//! `routes` is the one table of routes. A handler extracts (`extract`, `json`), makes one call, matches the outcome and
//! responds (`response`, [`problem`]).

mod batch;
mod body;
mod claims;
mod docs;
mod events;
mod extract;
#[cfg(any(test, fuzzing))]
#[doc(hidden)]
#[path = "../../fuzz/harness/api.rs"]
pub mod fuzz;
mod health;
mod json;
mod list;
mod metrics;
#[cfg(feature = "pieces")]
#[doc(hidden)]
#[path = "../../benches/pieces/api.rs"]
pub mod pieces;
pub mod problem;
mod queues;
mod rejection;
mod report_batches;
mod reports;
mod request_id;
mod request_metrics;
mod response;
mod router;
mod routes;
mod slots;
mod state;
mod stats;
mod status_cache;
mod submit;
mod tasks;
mod trace_context;
mod workers;

pub use docs::CONTRACT;
pub use rejection::render_rejection;
pub use request_id::RequestId;
pub use request_metrics::RequestMetrics;
pub use router::{Endpoint, Router};
pub use routes::route_table;
pub use state::Api;
pub use status_cache::StatusCache;
