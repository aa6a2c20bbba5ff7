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

/// Tasks of a shard read at once, where their payloads come with them.
const CHUNK: usize = 16;

/// The wait before the last lease of a task.
#[derive(Clone, Debug)]
pub struct Wait {
    /// The lease's token.
    pub lease: Token,
    /// Since when the task was ready.
    pub ready: Millis,
    /// Since when it was leased.
    pub begun: Millis,
}

/// The last lease of a task, live or not.
#[derive(Clone, Debug)]
pub struct Course {
    /// Its token.
    pub lease: Token,
    /// Since when it holds or held.
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

/// Reads the waits of tasks of one shard; `None` where there is no such task, or it was never leased.
pub async fn waits(shard: &Shard, ids: &[TaskId]) -> Result<Vec<Option<Wait>>> {
    let mut pipeline = pipe();
    for id in ids {
        pipeline.cmd("HMGET").arg(shard.keys.task(id)).arg(&["t", "c", "r", "h"]);
    }
    shard.read(&pipeline).await?.into_iter().map(wait).collect()
}

/// Reads the courses of tasks of one shard, with what hangs on them; `None` as above.
pub async fn courses(shard: &Shard, ids: &[TaskId]) -> Result<Vec<Option<Course>>> {
    let mut found = Vec::with_capacity(ids.len());
    for chunk in ids.chunks(CHUNK) {
        let mut pipeline = pipe();
        for id in chunk {
            pipeline.cmd("HMGET").arg(shard.keys.task(id)).arg(&["t", "h", "u", "W", "a", "q", "d"]);
        }
        for answer in shard.read(&pipeline).await? {
            found.push(course(answer)?);
        }
    }
    Ok(found)
}

/// The fields of one answer, in their order; what is missing is empty.
fn fields(answer: Value) -> Result<impl FnMut() -> Vec<u8>> {
    let mut fields = items(answer)?;
    Ok(move || match fields.next() {
        Some(Value::BulkString(bytes)) => bytes,
        _ => Vec::new(),
    })
}

/// Reads one answer.
pub(in crate::store) fn wait(answer: Value) -> Result<Option<Wait>> {
    let mut next = fields(answer)?;
    let lease = Token::from_bytes(&next());
    let (created, ready, begun) = (number(&next()), number(&next()), number(&next()));
    let read = || Some(Wait { lease: lease?, ready: Millis(ready.or(created)?), begun: Millis(begun?) });
    Ok(read())
}

/// Reads one answer.
pub(in crate::store) fn course(answer: Value) -> Result<Option<Course>> {
    let mut next = fields(answer)?;
    let lease = Token::from_bytes(&next());
    let (begun, until) = (number(&next()), number(&next()));
    let worker = String::from_utf8_lossy(&next()).into_owned();
    let attempts = number(&next()).and_then(|count| u32::try_from(count).ok()).unwrap_or(0);
    let queue = std::str::from_utf8(&next()).ok().and_then(QueueName::parse);
    let document = unseal_document(&next());
    let read = || {
        Some(Course {
            lease: lease?,
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
