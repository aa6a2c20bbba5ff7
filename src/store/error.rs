//! What can go wrong with Redis. Ordinary outcomes are values of each operation, not errors.

use deadpool_redis::redis::{ErrorKind, RedisError, ServerErrorKind};

/// The result of everything that speaks Redis.
pub type Result<T> = std::result::Result<T, Error>;

/// Why Redis gave no answer that can be used.
#[derive(Clone, Debug, thiserror::Error)]
pub enum Error {
    /// It is away, loading, on the move, or did not answer in time. Whether a write happened is unknown.
    #[error("Redis is not available: {0}")]
    Unavailable(String),
    /// It refuses writes because its memory is full. Nothing was written.
    #[error("Redis is full: {0}")]
    Full(String),
    /// It answered what it should not: a bug, or somebody else's data under our names.
    #[error("unexpected answer of Redis: {0}")]
    Unexpected(String),
}

/// Words of errors that pass by themselves, or once an operator has mended something; nothing was written.
const PASSING: [&str; 8] = [
    "MISCONF",
    "NOREPLICAS",
    "BUSY",
    "LOADING",
    "TRYAGAIN",
    "CLUSTERDOWN",
    // A script met a slot on the move.
    "non local key",
    "UNBLOCKED",
];

impl From<RedisError> for Error {
    fn from(error: RedisError) -> Self {
        let text = error.to_string();
        match error.kind() {
            ErrorKind::Server(ServerErrorKind::ResponseError) | ErrorKind::Extension if text.contains("OOM") => {
                Error::Full(text)
            }
            ErrorKind::Io
            | ErrorKind::ClusterConnectionNotFound
            | ErrorKind::AuthenticationFailed
            | ErrorKind::Server(
                ServerErrorKind::BusyLoading
                | ServerErrorKind::TryAgain
                | ServerErrorKind::ClusterDown
                | ServerErrorKind::MasterDown
                | ServerErrorKind::Moved
                | ServerErrorKind::Ask
                | ServerErrorKind::ReadOnly,
            ) => Error::Unavailable(text),
            _ if PASSING.iter().any(|word| text.contains(word)) => Error::Unavailable(text),
            _ => Error::Unexpected(text),
        }
    }
}
