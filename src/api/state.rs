//! The state that every handler shares.

use std::sync::Arc;
use std::time::SystemTime;

use super::request_metrics::RequestMetrics;
use super::status_cache::StatusCache;
use crate::config::Durability;
use crate::dispatch::Dispatch;
use crate::http_server::ServerState;
use crate::store::Store;
use crate::upkeep::Upkeep;

/// The state that every handler shares. A clone shares all of it.
#[derive(Clone, Debug)]
pub struct Api {
    /// Claims, writes to tasks, events.
    pub dispatch: Arc<Dispatch>,
    /// The background jobs, for their metrics.
    pub upkeep: Arc<Upkeep>,
    /// The failures that an accepted task survives.
    pub durability: Durability,
    /// The HTTP server's limits, counters and shutdown state.
    pub server: Arc<ServerState>,
    /// Counts and durations of requests.
    pub request_metrics: Arc<RequestMetrics>,
    /// When this process started.
    pub started_at: SystemTime,
    /// The last reading of the data set's totals and queues.
    pub status_cache: Arc<StatusCache>,
}

impl Api {
    pub(super) fn store(&self) -> &Store {
        self.dispatch.store()
    }
}
