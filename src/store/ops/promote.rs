//! Makes scheduled tasks ready once their time has come.

use crate::domain::limits;
use crate::domain::queue::QueueName;
use crate::store::error::Result;
use crate::store::redis::reply;
use crate::store::redis::script::{Script, script};
use crate::store::shard::{Caller, Shard};

pub(super) static SCRIPT: Script = script!(write "promote", ["due", "set_due", "task", "write_task", "events", "counts", "transition", "front", "piece_functions", ("local function use_pieces()" ["pieces"]), ("local function define_passes()" ["passes"]), "keyed_member", "wheel", "dequeue", "stop_waiting", "dedupe", "free_dedupe", "index_end", "finish_task", "expiry"]);

/// Makes at most `limit` due tasks of the queue ready, and updates the queue's time in `due`. Returns the number of entries
/// that it took from the index.
pub async fn promote(shard: &Shard, caller: &mut Caller, queue: &QueueName, limit: usize) -> Result<usize> {
    let mut call = shard.call(&SCRIPT, caller);
    call.push(queue.as_str()).push_usize(limit).push_int(limits::RETAIN_OTHER_MS);
    let mut reply = reply::read_list(call.send().await?)?;
    let (taken, expired) = (reply.int()?, reply.int()?);
    shard.transitions().promoted.add(taken.saturating_sub(expired).unsigned_abs());
    shard.transitions().expired.add(expired.unsigned_abs());
    Ok(usize::try_from(taken).unwrap_or(0))
}
