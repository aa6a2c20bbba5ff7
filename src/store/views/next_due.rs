//! What comes next in a shard, and when.

use deadpool_redis::redis::Value;

use crate::domain::queue::QueueName;
use crate::domain::time::TimestampMs;
use crate::store::error::Result;
use crate::store::redis::reply::{read_list, text};
use crate::store::redis::script::{Script, script};
use crate::store::shard::Shard;

pub(in crate::store) static SCRIPT: Script = script!(read "next_due", ["clock"]);

/// Queues looked at in one go.
pub const MAX_DUE_QUEUES: usize = 100;

/// What the shard's clock and its indexes by time say.
#[derive(Clone, Debug)]
pub struct NextDue {
    /// Redis' time.
    pub now: TimestampMs,
    /// Not later than the first delay, retry or lease that ends.
    pub due_at: Option<TimestampMs>,
    /// The first deadline of a waiting task.
    pub expires_at: Option<TimestampMs>,
    /// The first end of a retention.
    pub retention_ends_at: Option<TimestampMs>,
    /// Queues whose time in `due` has come, at most [`QUEUES`].
    pub due_queues: Vec<QueueName>,
}

/// Reads it.
pub async fn next_due(shard: &Shard) -> Result<NextDue> {
    decode(shard.read_script(&SCRIPT, vec![MAX_DUE_QUEUES.to_string().into()]).await?)
}

/// Reads the answer.
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
