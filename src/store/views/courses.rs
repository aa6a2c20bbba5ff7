//! Where tasks are in their course, as far as it is shown to who follows them.

use deadpool_redis::redis::{Value, pipe};

use crate::domain::id::TaskId;
use crate::domain::queue::QueueName;
use crate::domain::task::Labels;
use crate::domain::time::Millis;
use crate::domain::token::Token;
use crate::store::error::Result;
use crate::store::record::unseal_document;
use crate::store::reply::{items, number};
use crate::store::shard::Shard;

/// Tasks read at once: their payloads come with them.
const CHUNK: usize = 16;

/// The last lease of a task, live or not, and the wait before it.
#[derive(Clone, Debug)]
pub struct Course {
    /// Its token.
    pub lease: Token,
    /// Since when the task was ready.
    pub ready: Millis,
    /// Since when it was leased.
    pub begun: Millis,
    /// Until when the lease holds or held.
    pub until: Millis,
    /// Who has or had it.
    pub worker: String,
    /// Which execution that counts it is, from 1, as long as it lasts.
    pub attempt: u32,
    /// The task's queue.
    pub queue: QueueName,
    /// What hangs on the task.
    pub labels: Labels,
}

/// Reads the courses of tasks of one shard; `None` where there is no such task, or it was never leased.
pub async fn courses(shard: &Shard, ids: &[TaskId]) -> Result<Vec<Option<Course>>> {
    let mut found = Vec::with_capacity(ids.len());
    for chunk in ids.chunks(CHUNK) {
        let mut pipeline = pipe();
        for id in chunk {
            pipeline.cmd("HMGET").arg(shard.keys.task(id)).arg(&["t", "c", "r", "h", "u", "W", "a", "q", "d"]);
        }
        for answer in shard.read(&pipeline).await? {
            found.push(course(answer)?);
        }
    }
    Ok(found)
}

/// Reads one answer.
pub(in crate::store) fn course(answer: Value) -> Result<Option<Course>> {
    let fields = items(answer)?.map(|field| match field {
        Value::BulkString(bytes) if !bytes.is_empty() => Some(bytes),
        _ => None,
    });
    let mut fields = fields.collect::<Vec<_>>().into_iter().map(Option::unwrap_or_default);
    let mut next = || fields.next().unwrap_or_default();
    let lease = Token::from_bytes(&next());
    let (created, ready, begun, until) = (number(&next()), number(&next()), number(&next()), number(&next()));
    let worker = String::from_utf8_lossy(&next()).into_owned();
    let attempts = number(&next()).and_then(|count| u32::try_from(count).ok()).unwrap_or(0);
    let queue = std::str::from_utf8(&next()).ok().and_then(QueueName::parse);
    let document = unseal_document(&next());
    let read = || {
        Some(Course {
            lease: lease?,
            ready: Millis(ready.or(created)?),
            begun: Millis(begun?),
            until: Millis(until?),
            worker,
            attempt: attempts.saturating_add(1),
            queue: queue?,
            labels: document?.0,
        })
    };
    Ok(read())
}
