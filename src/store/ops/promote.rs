//! Makes scheduled tasks ready once their time has come.

use crate::domain::limits;
use crate::domain::queue::QueueName;
use crate::store::error::Result;
use crate::store::redis::reply;
use crate::store::redis::script::{Script, script};
use crate::store::shard::{Caller, Shard};

pub(super) static SCRIPT: Script = script!(write "promote", ["events", "wheel"]);

/// Makes due tasks of the queue ready, and updates the queue's time in `due`. Returns whether there may be more.
pub async fn promote(shard: &Shard, caller: &mut Caller, queue: &QueueName) -> Result<bool> {
    let mut call = shard.call(&SCRIPT, caller);
    call.push(queue.as_str()).push_usize(limits::MAX_CALL_ITEMS);
    let promoted = reply::int(call.send().await?)?;
    shard.transitions().promoted.add(promoted.unsigned_abs());
    Ok(promoted >= limits::MAX_CALL_ITEMS as i64)
}
