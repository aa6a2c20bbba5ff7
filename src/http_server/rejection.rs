//! Why the server rejects a connection or a request.

use axum::http::Response;
use bytes::Bytes;

use super::request_head::HeadError;

/// Renders a rejection as a response. The server adds the headers that concern the connection.
pub type RenderRejection = fn(Rejection) -> Response<Bytes>;

/// Why a connection is rejected, or a request is rejected before its handler has all of it. The text says so to the
/// client.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
pub enum Rejection {
    /// All connections are in use.
    #[error("the server has reached its limit of connections (max_connections)")]
    MaxConnections,
    /// The client's address uses all the connections that one address may have.
    #[error("your address has reached its limit of connections (max_connections_per_address)")]
    MaxConnectionsPerAddress,
    /// The request head is malformed or ambiguous.
    #[error("{0}")]
    MalformedHead(&'static str),
    /// The request head exceeds a limit.
    #[error("{0}")]
    HeadTooLarge(&'static str),
    /// The request head was not complete in time.
    #[error("the request head did not arrive in time (head_timeout_ms)")]
    HeadTimeout,
    /// The request body was not complete in time.
    #[error("the request body did not arrive in time")]
    BodyTooSlow,
    /// Other request bodies hold all the memory for bodies.
    #[error("other request bodies hold all the memory for request bodies (max_body_memory_bytes)")]
    BodyMemory,
}

impl From<HeadError> for Rejection {
    fn from(error: HeadError) -> Self {
        match error {
            HeadError::Malformed(detail) => Rejection::MalformedHead(detail),
            HeadError::TooLarge(detail) => Rejection::HeadTooLarge(detail),
        }
    }
}
