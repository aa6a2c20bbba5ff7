//! Where tasks are in their course, as far as it is shown to who follows them.

use deadpool_redis::redis::{Value, pipe};

use crate::domain::id::TaskId;
use crate::domain::queue::QueueName;
use crate::domain::task::Attributes;
use crate::domain::time::TimestampMs;
use crate::domain::token::Token;
use crate::store::error::Result;
use crate::store::record::{decode_document, fields};
use crate::store::redis::reply::{parse_int, read_list};
use crate::store::shard::Shard;

/// Tasks of a shard read at once, where their payloads come with them.
const TASKS_PER_READ: usize = 16;

/// The wait before the last lease of a task.
#[derive(Clone, Debug)]
pub struct ReadyWait {
    /// The lease's token.
    pub lease: Token,
    /// Since when the task was ready.
    pub ready_at: TimestampMs,
    /// Since when it was leased.
    pub begun: TimestampMs,
}

/// The last lease of a task, live or not.
#[derive(Clone, Debug)]
pub struct LeaseDetails {
    /// Its token.
    pub lease: Token,
    /// Since when it holds or held.
    pub begun: TimestampMs,
    /// Until when the lease holds or held.
    pub lease_until: TimestampMs,
    /// Who has or had it.
    pub worker: String,
    /// Which execution that counts it is, from 1, as long as it lasts.
    pub attempt: u32,
    /// The task's queue.
    pub queue: QueueName,
    /// What hangs on the task.
    pub labels: Attributes,
}

/// Reads the waits of tasks of one shard; `None` where there is no such task, or it was never leased.
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
    shard.send_pipeline(&pipeline).await?.into_iter().map(decode_ready_wait).collect()
}

/// Reads the courses of tasks of one shard, with what hangs on them; `None` as above.
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
        for answer in shard.send_pipeline(&pipeline).await? {
            found.push(decode_lease_details(answer)?);
        }
    }
    Ok(found)
}

/// The fields of one answer, in their order; what is missing is empty.
fn field_reader(answer: Value) -> Result<impl FnMut() -> Vec<u8>> {
    let mut fields = read_list(answer)?;
    Ok(move || match fields.next() {
        Some(Value::BulkString(bytes)) => bytes,
        _ => Vec::new(),
    })
}

/// Reads one answer.
pub(in crate::store) fn decode_ready_wait(answer: Value) -> Result<Option<ReadyWait>> {
    let mut next = field_reader(answer)?;
    let lease = Token::from_bytes(&next());
    let (created, ready, begun) = (parse_int(&next()), parse_int(&next()), parse_int(&next()));
    let read =
        || Some(ReadyWait { lease: lease?, ready_at: TimestampMs(ready.or(created)?), begun: TimestampMs(begun?) });
    Ok(read())
}

/// Reads one answer.
pub(in crate::store) fn decode_lease_details(answer: Value) -> Result<Option<LeaseDetails>> {
    let mut next = field_reader(answer)?;
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
