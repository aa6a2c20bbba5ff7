//! The clock of a shard and the next times at which upkeep has work.

use deadpool_redis::redis::Value;

use crate::domain::queue::QueueName;
use crate::domain::time::TimestampMs;
use crate::store::error::Result;
use crate::store::redis::reply::{read_list, text};
use crate::store::redis::script::{Script, script};
use crate::store::shard::Shard;

pub(in crate::store) static SCRIPT: Script = script!(read "next_due", ["clock", "confirmed_clock"]);

/// The maximum number of due queues returned.
pub const MAX_DUE_QUEUES: usize = 100;

/// A queue with a scheduled task that is due, or a lease that has expired.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct DueQueue {
    /// Its name.
    pub name: QueueName,
    /// The time since which it is due, or an earlier one.
    pub due_at: TimestampMs,
}

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
    /// The first of these times that is later than `now`. Of `due`, the first queue that is not due yet counts.
    pub next_at: Option<TimestampMs>,
    /// The number of queues that are due.
    pub due_count: usize,
    /// Indexes that cannot be read, because their keys have another type.
    pub unreadable_indexes: Vec<String>,
    /// A page of the queues that are due, at most [`MAX_DUE_QUEUES`], in the order of their times.
    pub due_queues: Vec<DueQueue>,
}

/// Reads the clock and the next due times of the shard.
pub async fn next_due(shard: &Shard) -> Result<NextDue> {
    next_due_after(shard, 0).await
}

/// The same, with the page of due queues that follows the first `skip`.
pub async fn next_due_after(shard: &Shard, skip: usize) -> Result<NextDue> {
    let arguments = vec![skip.to_string().into(), MAX_DUE_QUEUES.to_string().into()];
    decode(shard.read_script(&SCRIPT, arguments).await?)
}

/// Decodes the reply. A queue whose name is invalid is left out.
pub(in crate::store) fn decode(reply: Value) -> Result<NextDue> {
    let mut reply = read_list(reply)?;
    let mut next_due = NextDue {
        now: TimestampMs(reply.int()?),
        due_at: reply.optional_time()?,
        expires_at: reply.optional_time()?,
        retention_ends_at: reply.optional_time()?,
        next_at: reply.optional_time()?,
        due_count: usize::try_from(reply.int()?).unwrap_or(0),
        unreadable_indexes: reply.list()?.map(text).collect::<Result<_>>()?,
        due_queues: Vec::new(),
    };
    while reply.len() > 0 {
        let (name, due_at) = (text(reply.value()?), TimestampMs(reply.int()?));
        next_due
            .due_queues
            .extend(name.ok().and_then(|name| QueueName::parse(&name)).map(|name| DueQueue { name, due_at }));
    }
    Ok(next_due)
}
