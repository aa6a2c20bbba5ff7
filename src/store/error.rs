//! What can go wrong with Redis. Ordinary outcomes are values of each operation, not errors.

use deadpool_redis::redis::{ErrorKind, RedisError, ServerErrorKind};
use tokio::time::error::Elapsed;

use super::circuit_breaker::DataLoss;

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
    /// It refuses writes because it cannot write to its disk. Nothing was written.
    #[error("Redis cannot write to its disk: {0}")]
    Disk(String),
    /// The data set is not the one that this server knows. Nothing was asked of it.
    #[error("{}", .0.explain())]
    DataLoss(DataLoss),
    /// Fewer replicas than wanted are there, and nothing was written; or it was, and fewer have said in time that they
    /// have it.
    #[error("too few replicas have it: {0}")]
    Unconfirmed(String),
    /// The server is stopping. Whether a write happened is unknown.
    #[error("the server is stopping")]
    Stopping,
    /// It answered what it should not: a bug, or somebody else's data under our names.
    #[error("unexpected answer of Redis: {0}")]
    Unexpected(String),
}

/// Words of errors that pass by themselves, or once an operator has mended something; nothing was written.
const TRANSIENT_ERRORS: [&str; 6] = [
    "BUSY",
    "LOADING",
    "TRYAGAIN",
    "CLUSTERDOWN",
    // A script met a slot on the move.
    "non local key",
    "UNBLOCKED",
];

impl Error {
    /// No answer within a time that is shorter than that of a call.
    pub fn timed_out(_: Elapsed) -> Self {
        Error::Unavailable("no answer in time".into())
    }

    /// Whether the shard is of no use for now, also to whoever comes next.
    pub fn is_outage(&self) -> bool {
        match self {
            Error::Unavailable(_) | Error::Disk(_) | Error::DataLoss(_) => true,
            Error::Full(_) | Error::Unconfirmed(_) | Error::Stopping | Error::Unexpected(_) => false,
        }
    }
}

impl From<RedisError> for Error {
    fn from(error: RedisError) -> Self {
        let text = error.to_string();
        match error.kind() {
            ErrorKind::Server(ServerErrorKind::ResponseError) | ErrorKind::Extension if text.contains("OOM") => {
                Error::Full(text)
            }
            _ if text.contains("NOREPLICAS") => Error::Unconfirmed(text),
            _ if text.contains("MISCONF") => Error::Disk(text),
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
            _ if TRANSIENT_ERRORS.iter().any(|word| text.contains(word)) => Error::Unavailable(text),
            _ => Error::Unexpected(text),
        }
    }
}
