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
use crate::store::redis::reply::{parse_int, read_list};
use crate::store::shard::Shard;

/// The number of tasks read together, payloads included.
const TASKS_PER_READ: usize = 16;

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
        pipeline.cmd("HMGET").arg(shard.keys.task(id)).arg(&[
            fields::LEASE_TOKEN,
            fields::CREATED_AT,
            fields::READY_AT,
            fields::LEASED_AT,
        ]);
    }
    let replies = shard.send_pipeline(&pipeline).await?.into_iter();
    replies.map(|reply| Ok(if_readable(decode_ready_wait(reply))?.flatten())).collect()
}

/// Returns the last lease of each task of one shard. `None`: there is no such task, or it was never leased.
pub async fn lease_details(shard: &Shard, ids: &[TaskId]) -> Result<Vec<Option<LeaseDetails>>> {
    let mut found = Vec::with_capacity(ids.len());
    for chunk in ids.chunks(TASKS_PER_READ) {
        let mut pipeline = pipe();
        for id in chunk {
            pipeline.cmd("HMGET").arg(shard.keys.task(id)).arg(&[
                fields::LEASE_TOKEN,
                fields::LEASED_AT,
                fields::LEASE_UNTIL,
                fields::WORKER,
                fields::ATTEMPTS,
                fields::QUEUE,
                fields::DOCUMENT,
            ]);
        }
        for reply in shard.send_pipeline(&pipeline).await? {
            found.push(if_readable(decode_lease_details(reply))?.flatten());
        }
    }
    Ok(found)
}

/// Returns the fields of a reply one by one. A missing field is empty.
fn field_reader(reply: Value) -> Result<impl FnMut() -> Vec<u8>> {
    let mut fields = read_list(reply)?;
    Ok(move || match fields.next() {
        Some(Value::BulkString(bytes)) => bytes,
        _ => Vec::new(),
    })
}

/// Decodes one reply.
pub(in crate::store) fn decode_ready_wait(reply: Value) -> Result<Option<ReadyWait>> {
    let mut next = field_reader(reply)?;
    let lease = Token::from_bytes(&next());
    let (created, ready, begun) = (parse_int(&next()), parse_int(&next()), parse_int(&next()));
    let read =
        || Some(ReadyWait { lease: lease?, ready_at: TimestampMs(ready.or(created)?), begun: TimestampMs(begun?) });
    Ok(read())
}

/// Decodes one reply.
pub(in crate::store) fn decode_lease_details(reply: Value) -> Result<Option<LeaseDetails>> {
    let mut next = field_reader(reply)?;
    let lease = Token::from_bytes(&next());
    let (begun, until) = (parse_int(&next()), parse_int(&next()));
    let worker = String::from_utf8_lossy(&next()).into_owned();
    let attempts = parse_int(&next()).and_then(|count| u32::try_from(count).ok()).unwrap_or(0);
    let queue = std::str::from_utf8(&next()).ok().and_then(QueueName::parse);
    let document = decode_document(&next());
    let read = || {
        Some(LeaseDetails {
            lease: lease?,
            begun: TimestampMs(begun?),
            lease_until: TimestampMs(until?),
            worker,
            attempt: attempts.saturating_add(1),
            queue: queue?,
            labels: document?.0,
        })
    };
    Ok(read())
}
