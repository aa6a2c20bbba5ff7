//! Counters of the HTTP server.

use super::rejection::Rejection;
use super::timeouts::Timeout;
use crate::metrics::counters;

/// Counters of one server. `/metrics` shows each of `counters` by its name, with its doc comment as help text. The other
/// tables have a counter for each value of the label `reason`.
#[derive(Default, Debug)]
pub struct Metrics {
    /// Counters without a label.
    pub counters: Counters,
    /// Connections closed by a timeout or for their age.
    pub connections_closed: ConnectionsClosed,
    /// Connections rejected at a limit.
    pub connections_rejected: ConnectionsRejected,
    /// Requests rejected for their head or their body.
    pub requests_rejected: RequestsRejected,
}

counters! {
    /// Counters without a label.
    pub struct Counters {
        /// Connections that the server accepted.
        connections_accepted,
    }
}

counters! {
    /// Connections that the server closed, by reason.
    pub struct ConnectionsClosed {
        /// No byte arrived.
        connect_idle,
        /// A request head was not complete in time.
        head_timeout,
        /// No request arrived.
        idle,
        /// The client did not read a response.
        write_timeout,
        /// The connection reached its maximum age.
        max_age,
    }
}

counters! {
    /// Connections that the server rejected, by reason.
    pub struct ConnectionsRejected {
        /// All connections were in use.
        max_connections,
        /// The address used all the connections that one address may have.
        max_connections_per_address,
    }
}

counters! {
    /// Requests that the server rejected, by reason.
    pub struct RequestsRejected {
        /// The head was malformed or ambiguous.
        malformed_head,
        /// The head exceeded a limit.
        head_too_large,
        /// The body did not arrive in time.
        body_too_slow,
        /// Other bodies held all the memory for bodies.
        body_memory,
    }
}

impl Metrics {
    /// Counts a connection that the timeout closes.
    pub(super) fn count_closed(&self, timeout: Timeout) {
        let closed = &self.connections_closed;
        match timeout {
            Timeout::ConnectIdle => closed.connect_idle.inc(),
            Timeout::Head => closed.head_timeout.inc(),
            Timeout::Idle => closed.idle.inc(),
            Timeout::Write => closed.write_timeout.inc(),
            Timeout::MaxAge => closed.max_age.inc(),
        }
    }

    /// Counts a rejection. A head timeout closes the connection, and is counted with the closed connections.
    pub(super) fn count_rejection(&self, rejection: Rejection) {
        match rejection {
            Rejection::MaxConnections => self.connections_rejected.max_connections.inc(),
            Rejection::MaxConnectionsPerAddress => self.connections_rejected.max_connections_per_address.inc(),
            Rejection::MalformedHead(_) => self.requests_rejected.malformed_head.inc(),
            Rejection::HeadTooLarge(_) => self.requests_rejected.head_too_large.inc(),
            Rejection::HeadTimeout => {}
            Rejection::BodyTooSlow => self.requests_rejected.body_too_slow.inc(),
            Rejection::BodyMemory => self.requests_rejected.body_memory.inc(),
        }
    }
}
