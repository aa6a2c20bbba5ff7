//! Forgets a queue without tasks.

use crate::domain::queue::QueueName;
use crate::store::error::Result;
use crate::store::redis::reply;
use crate::store::redis::script::{Script, script};
use crate::store::shard::{Caller, Shard};

pub(super) static SCRIPT: Script = script!(write "remove_queue", ["counts", "due", "set_due", "front"]);

/// Outcome in one shard.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum QueueRemoved {
    /// The shard has no tasks of the queue, and has forgotten it.
    Now,
    /// Tasks of the queue wait or are leased.
    NotEmpty,
    /// Ended tasks of the queue are left.
    HasEnded,
}

/// Forgets the queue, if the shard has no task of it. A copy of its settings is left.
pub async fn remove_queue(shard: &Shard, caller: &mut Caller, queue: &QueueName) -> Result<QueueRemoved> {
    let mut call = shard.call(&SCRIPT, caller);
    call.push(queue.as_str());
    match reply::text(call.send().await?)?.as_str() {
        "removed" => Ok(QueueRemoved::Now),
        "not_empty" => Ok(QueueRemoved::NotEmpty),
        "has_ended" => Ok(QueueRemoved::HasEnded),
        other => super::unexpected_reply(&SCRIPT, other),
    }
}
