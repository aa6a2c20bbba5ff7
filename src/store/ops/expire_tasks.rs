//! Ends tasks that expired while they waited.

use crate::domain::limits;
use crate::store::error::Result;
use crate::store::redis::reply;
use crate::store::redis::script::{Script, script};
use crate::store::shard::{Caller, Shard};

pub(super) static SCRIPT: Script = script!(write "expire_tasks", ["due", "task", "write_task", "events", "counts", "transition", "front", "piece_functions", ("local function use_pieces()" ["pieces"]), ("local function define_passes()" ["passes"]), "keyed_member", "wheel", "dequeue", "stop_waiting", "dedupe", "free_dedupe", "index_end", "finish_task", "expiry"]);

/// Ends waiting tasks whose time of expiry has passed, and removes entries of tasks that do not wait: at most `limit` of
/// both. Returns the number of both.
pub async fn expire_tasks(shard: &Shard, caller: &mut Caller, limit: usize) -> Result<usize> {
    let mut call = shard.call(&SCRIPT, caller);
    call.push_int(limits::RETAIN_OTHER_MS).push_usize(limit);
    let mut reply = reply::read_list(call.send().await?)?;
    let (ended, checked) = (reply.int()?, reply.int()?);
    shard.transitions().expired.add(ended.unsigned_abs());
    Ok(usize::try_from(checked).unwrap_or(0))
}
