//! Errors of the store. Ordinary outcomes are values of each operation, not errors.

use deadpool_redis::redis::{ErrorKind, RedisError, ServerErrorKind};
use tokio::time::error::Elapsed;

/// The result of every call of the store.
pub type Result<T> = std::result::Result<T, Error>;

/// Why Redis gave no usable reply.
#[derive(Clone, Debug, thiserror::Error)]
pub enum Error {
    /// Redis is unreachable, loading or migrating the slot, or did not reply in time. A write may have taken effect.
    #[error("Redis is not available: {0}")]
    Unavailable(String),
    /// Redis rejects writes because its memory is full. Nothing was written.
    #[error("Redis is full: {0}")]
    Full(String),
    /// Redis rejects writes because it cannot write to its disk. Nothing was written.
    #[error("Redis cannot write to its disk: {0}")]
    Disk(String),
    /// The data set is not the one that this server knows. The call was not made.
    #[error("{}", .0.explain())]
    DataLoss(DataLoss),
    /// Too few replicas are connected, and nothing was written; or the write took effect, and too few replicas
    /// confirmed it in time.
    #[error("too few replicas: {0}")]
    Unconfirmed(String),
    /// The server is stopping. A write may have taken effect.
    #[error("the server is stopping")]
    Stopping,
    /// Redis gave an unexpected reply: a bug, or foreign data under the same key prefix.
    #[error("unexpected reply from Redis: {0}")]
    Unexpected(String),
}

/// How the data of a shard differs from the data that the server last saw.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum DataLoss {
    /// The shard is empty.
    Missing,
    /// The shard holds another data set under the same prefix.
    Replaced,
    /// The shard holds an earlier state of the same data set.
    RolledBack,
}

impl DataLoss {
    /// All values.
    pub const ALL: [DataLoss; 3] = [DataLoss::Missing, DataLoss::Replaced, DataLoss::RolledBack];

    /// Returns the name used as a metric label.
    pub fn as_str(self) -> &'static str {
        match self {
            DataLoss::Missing => "missing",
            DataLoss::Replaced => "replaced",
            DataLoss::RolledBack => "rolled_back",
        }
    }

    /// Returns the finding and the remedy, for an operator.
    pub fn explain(self) -> &'static str {
        match self {
            DataLoss::Missing => {
                "the data set is missing: it was flushed, or this is another Redis or database. Restore it, or accept \
                 the loss with `slotwheel doctor --accept-loss`"
            }
            DataLoss::Replaced => {
                "another data set replaced the one of this server. Restore it, or accept the change with `slotwheel \
                 doctor --accept-loss`"
            }
            DataLoss::RolledBack => {
                "the data set was rolled back to an earlier state: the last accepted writes are lost. Accept it with \
                 `slotwheel doctor --accept-loss`"
            }
        }
    }

    /// Whether requests are rejected until an operator accepts the loss. An earlier state is served, because its tasks
    /// are real. A missing data set is not: it would look like empty queues.
    pub(super) fn blocks_requests(self) -> bool {
        match self {
            DataLoss::Missing | DataLoss::Replaced => true,
            DataLoss::RolledBack => false,
        }
    }
}

/// Words in errors that pass by themselves or after a repair by an operator. Nothing was written.
const TRANSIENT_ERRORS: [&str; 6] = [
    "BUSY",
    "LOADING",
    "TRYAGAIN",
    "CLUSTERDOWN",
    // A script met a slot that is migrating.
    "non local key",
    "UNBLOCKED",
];

impl Error {
    /// Returns the error for a time limit that is shorter than that of a call.
    pub fn timed_out(_: Elapsed) -> Self {
        Error::Unavailable("no reply in time".into())
    }

    /// Whether the shard is unusable for now, for every request.
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
