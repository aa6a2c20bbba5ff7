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
    /// Redis rejects the user or the password of this server. The call was not made.
    #[error("Redis rejects the user or the password of this server: {0}")]
    Unauthenticated(String),
    /// The user of this server lacks a permission in Redis. The call was not made, or stopped at a command that it may
    /// not run.
    #[error("the user of Redis lacks a permission: {0}")]
    Denied(String),
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
const TRANSIENT_ERRORS: [&str; 7] = [
    "BUSY",
    "LOADING",
    "TRYAGAIN",
    "CLUSTERDOWN",
    // A script met a slot that is migrating.
    "non local key",
    "UNBLOCKED",
    "max number of clients",
];

/// Words in errors of a rejected user or password.
const AUTHENTICATION_ERRORS: [&str; 5] = [
    "NOAUTH",
    "WRONGPASS",
    // A command without a user has more than ten arguments, or a long one.
    "unauthenticated",
    // The URL has a password, and Redis has none.
    "without any password configured",
    // Redis has no password, and accepts connections of its own machine only.
    "protected mode",
];

/// Words in errors of a missing permission: of a command, and of a script's command in Redis 7.0 and since 7.2.
const PERMISSION_ERRORS: [&str; 3] = ["NOPERM", "The user executing the script can't", "ACL failure in script"];

/// Whether the text of an error means a missing permission.
pub(super) fn is_denial(text: &str) -> bool {
    contains_any(text, &PERMISSION_ERRORS)
}

fn contains_any(text: &str, words: &[&str]) -> bool {
    words.iter().any(|word| text.contains(word))
}

impl Error {
    /// Returns the error for a time limit that is shorter than that of a call.
    pub fn timed_out(_: Elapsed) -> Self {
        Error::Unavailable("no reply in time".into())
    }

    /// Whether the shard is unusable for now, for every request.
    pub fn is_outage(&self) -> bool {
        match self {
            Error::Unavailable(_)
            | Error::Disk(_)
            | Error::Unauthenticated(_)
            | Error::Denied(_)
            | Error::DataLoss(_) => true,
            Error::Full(_) | Error::Unconfirmed(_) | Error::Stopping | Error::Unexpected(_) => false,
        }
    }
}

/// Returns `None` in place of data that cannot be read, so that the rest of a view is shown.
pub(super) fn if_readable<T>(outcome: Result<T>) -> Result<Option<T>> {
    match outcome {
        Ok(value) => Ok(Some(value)),
        Err(Error::Unexpected(_)) => Ok(None),
        Err(error) => Err(error),
    }
}

impl From<RedisError> for Error {
    fn from(error: RedisError) -> Self {
        let text = error.to_string();
        match error.kind() {
            ErrorKind::AuthenticationFailed => Error::Unauthenticated(text),
            _ if contains_any(&text, &AUTHENTICATION_ERRORS) => Error::Unauthenticated(text),
            ErrorKind::Server(ServerErrorKind::NoPerm) => Error::Denied(text),
            _ if is_denial(&text) => Error::Denied(text),
            ErrorKind::Server(ServerErrorKind::ResponseError) | ErrorKind::Extension if text.contains("OOM") => {
                Error::Full(text)
            }
            _ if text.contains("NOREPLICAS") => Error::Unconfirmed(text),
            _ if text.contains("MISCONF") => Error::Disk(text),
            ErrorKind::Io
            | ErrorKind::ClusterConnectionNotFound
            | ErrorKind::Server(
                ServerErrorKind::BusyLoading
                | ServerErrorKind::TryAgain
                | ServerErrorKind::ClusterDown
                | ServerErrorKind::MasterDown
                | ServerErrorKind::Moved
                | ServerErrorKind::Ask
                | ServerErrorKind::ReadOnly,
            ) => Error::Unavailable(text),
            _ if contains_any(&text, &TRANSIENT_ERRORS) => Error::Unavailable(text),
            _ => Error::Unexpected(text),
        }
    }
}

#[cfg(test)]
mod tests {
    use deadpool_redis::redis::parse_redis_value;

    use super::*;

    /// Returns the error for a line that Redis sends.
    fn error(line: &str) -> Error {
        parse_redis_value(format!("-{line}\r\n").as_bytes()).unwrap().extract_error().unwrap_err().into()
    }

    #[test]
    fn errors_of_a_redis_that_does_not_serve_now_are_no_unexpected_replies() {
        for line in [
            "BUSY Redis is busy running a script. You can only call SCRIPT KILL or SHUTDOWN NOSAVE.",
            "CLUSTERDOWN The cluster is down",
            "ERR max number of clients reached",
            "ERR Script attempted to access a non local key in a cluster node script: 12, on @user_script:3.",
            "LOADING Redis is loading the dataset in memory",
            "MASTERDOWN Link with MASTER is down and replica-serve-stale-data is set to 'no'.",
            "READONLY You can't write against a read only replica.",
            "TRYAGAIN Multiple keys request during rehashing of slot",
        ] {
            assert!(matches!(error(line), Error::Unavailable(_)), "{line}");
        }
        for line in [
            "NOAUTH Authentication required.",
            "ERR Protocol error: unauthenticated multibulk length",
            "WRONGPASS invalid username-password pair or user is disabled.",
            "ERR AUTH <password> called without any password configured for the default user.",
            "DENIED Redis is running in protected mode because protected mode is enabled",
        ] {
            assert!(matches!(error(line), Error::Unauthenticated(_)), "{line}");
        }
        for line in [
            "NOPERM this user has no permissions to run the 'hmget' command",
            "NOPERM User u has no permissions to access a key used as argument",
            "ERR The user executing the script can't run this command or subcommand script: 12, on @user_script:2.",
            "ERR ACL failure in script: User u has no permissions to run the 'hset' command script: 12",
        ] {
            assert!(matches!(error(line), Error::Denied(_)), "{line}");
        }
        assert!(matches!(error("MISCONF Errors writing to the AOF file: No space left on device"), Error::Disk(_)));
        assert!(matches!(error("OOM command not allowed when used memory > 'maxmemory'."), Error::Full(_)));
        assert!(matches!(error("NOREPLICAS Not enough good replicas to write."), Error::Unconfirmed(_)));
        assert!(matches!(error("WRONGTYPE Operation against a key"), Error::Unexpected(_)));
    }
}
