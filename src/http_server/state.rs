//! The state of a server that its connections share.

use std::sync::Arc;

use tokio_util::sync::CancellationToken;

use super::body_memory::{BodyMemory, MemoryPermit};
use super::close;
use super::connection_limits::ConnectionLimits;
use super::metrics::Metrics;
use super::rejection::{Rejection, RenderRejection};
use crate::config::Limits;

/// The state that all connections of a server share.
#[derive(Debug)]
pub struct ServerState {
    pub(super) shutdown: ShutdownTokens,
    pub(super) limits: Arc<Limits>,
    pub(super) connection_limits: Arc<ConnectionLimits>,
    body_memory: Arc<BodyMemory>,
    render_rejection: RenderRejection,
    pub(super) metrics: Metrics,
}

/// The steps of a shutdown, in order.
#[derive(Debug)]
pub struct ShutdownTokens {
    /// From here on, each HTTP/1 response is the last of its connection.
    pub stopping: CancellationToken,
    /// From here on, no connection is accepted, and a connection without a request in progress is closed.
    pub closing: CancellationToken,
}

impl ShutdownTokens {
    /// Returns the tokens for a server that stops in the two steps given. `closing` may follow `stopping` later.
    pub fn new(stopping: CancellationToken, closing: CancellationToken) -> Self {
        ShutdownTokens { stopping, closing }
    }
}

impl ServerState {
    /// Returns the state of a server without connections.
    pub fn new(limits: &Limits, shutdown: ShutdownTokens, render_rejection: RenderRejection) -> Arc<Self> {
        Arc::new(ServerState {
            shutdown,
            limits: Arc::new(limits.clone()),
            connection_limits: ConnectionLimits::new(limits.max_connections, limits.max_connections_per_address),
            body_memory: BodyMemory::new(limits.max_body_memory_bytes),
            render_rejection,
            metrics: Metrics::default(),
        })
    }

    /// Whether the server has begun to shut down.
    pub(crate) fn is_stopping(&self) -> bool {
        self.shutdown.stopping.is_cancelled()
    }

    /// Returns the counters of this server.
    pub fn metrics(&self) -> &Metrics {
        &self.metrics
    }

    /// Returns the number of open connections.
    pub fn open_connections(&self) -> usize {
        self.connection_limits.open_connections()
    }

    /// Returns the number of bytes that request bodies hold in memory.
    pub fn body_memory_bytes(&self) -> usize {
        self.body_memory.reserved_bytes()
    }

    /// Returns a permit for a body of `expected_bytes`. See [`BodyMemory::permit`].
    pub(crate) fn body_permit(&self, expected_bytes: usize) -> Result<MemoryPermit, Rejection> {
        self.body_memory.permit(expected_bytes).ok_or_else(|| self.reject(Rejection::BodyMemory))
    }

    /// Counts the rejection and returns it.
    pub(crate) fn reject(&self, rejection: Rejection) -> Rejection {
        self.metrics.count_rejection(rejection);
        rejection
    }

    /// Returns the rejection as an encoded response, after which the connection is closed.
    pub(super) fn encode_rejection(&self, rejection: Rejection) -> Vec<u8> {
        close::encode_response((self.render_rejection)(rejection))
    }
}
