//! The last lease of tasks, and the wait before it, for spans.

use deadpool_redis::redis::{Value, pipe};

use crate::domain::id::TaskId;
use crate::domain::queue::QueueName;
use crate::domain::task::Attributes;
use crate::domain::time::TimestampMs;
use crate::domain::token::Token;
use crate::store::error::{Result, if_readable};
use crate::store::opaque::decode_document;
use crate::store::record::fields;
use crate::store::shard::Shard;
use crate::store::task_hash::TaskHash;

/// The number of tasks read together, payloads included.
const TASKS_PER_READ: usize = 16;
const WAIT_FIELDS: [&str; 2] = [fields::PLACEMENT, fields::LEASE];
const DETAIL_FIELDS: [&str; 3] = [fields::PLACEMENT, fields::LEASE, fields::DOCUMENT];

/// The time for which a task was ready before its last lease.
#[derive(Clone, Debug)]
pub struct ReadyWait {
    /// The token of the lease.
    pub lease: Token,
    /// The start of the wait.
    pub ready_at: TimestampMs,
    /// The start of the lease, which ends the wait.
    pub begun: TimestampMs,
}

/// The last lease of a task. It may have ended.
#[derive(Clone, Debug)]
pub struct LeaseDetails {
    /// The token.
    pub lease: Token,
    /// The start of the lease.
    pub begun: TimestampMs,
    /// The time at which the lease expires or expired.
    pub lease_until: TimestampMs,
    /// The worker.
    pub worker: String,
    /// The attempt number, from 1. Exact while the lease is live.
    pub attempt: u32,
    /// The task's queue.
    pub queue: QueueName,
    /// The task's attributes.
    pub labels: Attributes,
}

/// Returns the last wait of each task of one shard. `None`: there is no such task, or it was never leased.
pub async fn ready_waits(shard: &Shard, ids: &[TaskId]) -> Result<Vec<Option<ReadyWait>>> {
    let mut pipeline = pipe();
    for id in ids {
        pipeline.cmd("HMGET").arg(shard.keys.task(id)).arg(&WAIT_FIELDS);
    }
    let replies = ids.iter().zip(shard.send_pipeline(&pipeline).await?);
    replies.map(|(id, reply)| Ok(if_readable(decode_ready_wait(*id, reply))?.flatten())).collect()
}

/// Returns the last lease of each task of one shard. `None`: there is no such task, or it was never leased.
pub async fn lease_details(shard: &Shard, ids: &[TaskId]) -> Result<Vec<Option<LeaseDetails>>> {
    let mut found = Vec::with_capacity(ids.len());
    for chunk in ids.chunks(TASKS_PER_READ) {
        let mut pipeline = pipe();
        for id in chunk {
            pipeline.cmd("HMGET").arg(shard.keys.task(id)).arg(&DETAIL_FIELDS);
        }
        for (id, reply) in chunk.iter().zip(shard.send_pipeline(&pipeline).await?) {
            found.push(if_readable(decode_lease_details(*id, reply))?.flatten());
        }
    }
    Ok(found)
}

/// Decodes one reply.
pub(in crate::store) fn decode_ready_wait(id: TaskId, reply: Value) -> Result<Option<ReadyWait>> {
    let Some(task) = TaskHash::parse_named(id, &WAIT_FIELDS, reply)? else { return Ok(None) };
    let time = |name| task.int(name).map(TimestampMs);
    let read =
        || Some(ReadyWait { lease: task.lease()?, ready_at: time(fields::READY_AT)?, begun: time(fields::LEASED_AT)? });
    Ok(read())
}

/// Decodes one reply.
pub(in crate::store) fn decode_lease_details(id: TaskId, reply: Value) -> Result<Option<LeaseDetails>> {
    let Some(task) = TaskHash::parse_named(id, &DETAIL_FIELDS, reply)? else { return Ok(None) };
    let time = |name| task.int(name).map(TimestampMs);
    let read = || {
        Some(LeaseDetails {
            lease: task.lease()?,
            begun: time(fields::LEASED_AT)?,
            lease_until: time(fields::LEASE_UNTIL)?,
            worker: task.worker(),
            attempt: task.attempts().saturating_add(1),
            queue: task.queue().ok()?,
            labels: decode_document(task.bytes(fields::DOCUMENT)?)?.0,
        })
    };
    Ok(read())
}
