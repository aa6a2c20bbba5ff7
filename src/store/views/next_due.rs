//! The clock of a shard and the next times at which upkeep has work.

use deadpool_redis::redis::Value;

use crate::domain::queue::QueueName;
use crate::domain::time::TimestampMs;
use crate::store::error::Result;
use crate::store::redis::reply::{read_list, text};
use crate::store::redis::script::{Script, script};
use crate::store::shard::Shard;

pub(in crate::store) static SCRIPT: Script = script!(read "next_due", ["clock"]);

/// The maximum number of due queues returned.
pub const MAX_DUE_QUEUES: usize = 100;

/// The time in Redis, and the first entries of the indexes by time.
#[derive(Clone, Debug)]
pub struct NextDue {
    /// The time in Redis.
    pub now: TimestampMs,
    /// Not later than the first run time of a scheduled task and the first lease expiry.
    pub due_at: Option<TimestampMs>,
    /// The first expiry of a waiting task.
    pub expires_at: Option<TimestampMs>,
    /// The first end of a retention period.
    pub retention_ends_at: Option<TimestampMs>,
    /// Queues that are due, at most [`MAX_DUE_QUEUES`].
    pub due_queues: Vec<QueueName>,
}

/// Reads the clock and the next due times of the shard.
pub async fn next_due(shard: &Shard) -> Result<NextDue> {
    decode(shard.read_script(&SCRIPT, vec![MAX_DUE_QUEUES.to_string().into()]).await?)
}

/// Decodes the reply.
pub(in crate::store) fn decode(reply: Value) -> Result<NextDue> {
    let mut reply = read_list(reply)?;
    Ok(NextDue {
        now: TimestampMs(reply.int()?),
        due_at: reply.optional_time()?,
        expires_at: reply.optional_time()?,
        retention_ends_at: reply.optional_time()?,
        due_queues: reply.filter_map(|queue| QueueName::parse(&text(queue).ok()?)).collect(),
    })
}
