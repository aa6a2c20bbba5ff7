//! Deletes ended tasks whose default retention has elapsed.

use crate::domain::limits;
use crate::store::error::Result;
use crate::store::redis::reply::read_list;
use crate::store::redis::script::{Script, script};
use crate::store::shard::{Caller, Shard};

pub(super) static SCRIPT: Script = script!(write "purge_ended", ["due", "task", "write_task", "events", "counts", "transition", "front", "piece_functions", ("local function use_pieces()" ["pieces"]), ("local function define_passes()" ["passes"]), "keyed_member", "wheel", "dequeue", "stop_waiting", "dedupe", "free_dedupe", "index_end", "ended_flag", "unindex_end", "delete_task", "ended_range"]);

/// The work of a call.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Purged {
    /// The number of tasks deleted.
    pub deleted: u64,
    /// Whether a queue was due. Its tasks may all have their own retention.
    pub was_due: bool,
}

/// Deletes tasks without their own retention, of the queue and state whose first one has been due for longest. Looks at `limit`
/// tasks.
pub async fn purge_ended(shard: &Shard, caller: &mut Caller, limit: usize) -> Result<Purged> {
    let mut call = shard.call(&SCRIPT, caller);
    call.push_int(limits::RETAIN_COMPLETED_MS).push_int(limits::RETAIN_DEAD_MS).push_int(limits::RETAIN_OTHER_MS);
    call.push_usize(limit);
    let mut reply = read_list(call.send().await?)?;
    let purged = Purged { deleted: reply.int()?.unsigned_abs(), was_due: reply.int()? == 1 };
    shard.transitions().deleted.add(purged.deleted);
    Ok(purged)
}
