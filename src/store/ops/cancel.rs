//! Cancels tasks at a client's request.

use crate::domain::id::TaskId;
use crate::domain::limits;
use crate::domain::state::State;
use crate::store::error::Result;
use crate::store::metrics::count_matching;
use crate::store::redis::reply::ReplyReader;
use crate::store::redis::script::{Script, script};
use crate::store::shard::{Caller, Shard};

pub(super) static SCRIPT: Script = script!(write "cancel", ["due", "task", "write_task", "events", "counts", "transition", "front", "piece_functions", ("local function use_pieces()" ["pieces"]), ("local function define_passes()" ["passes"]), "keyed_member", "wheel", "dequeue", "stop_waiting", "dedupe", "free_dedupe", "index_end", "finish_task", "expiry"]);

/// Outcome for one task.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Cancelled {
    /// The task waited, and is cancelled now.
    Now,
    /// The task had been cancelled before.
    AlreadyCancelled,
    /// The task is leased: its worker sees the request with its next heartbeat.
    Requested,
    /// The task waited past its time of expiry, and is expired now.
    Expired,
    /// The task has ended in this other state.
    Ended(State),
    /// There is no such task.
    Unknown,
}

/// Cancels waiting tasks and marks leased ones.
pub async fn cancel(shard: &Shard, caller: &mut Caller, ids: &[TaskId]) -> Result<Vec<Cancelled>> {
    let mut call = shard.call(&SCRIPT, caller);
    call.push_int(limits::RETAIN_OTHER_MS).push_usize(ids.len());
    for id in ids {
        call.push(id.as_bytes());
    }
    let outcomes = super::parse_items(call.send().await?, ids.len(), parse_item)?;
    shard.transitions().cancelled.add(count_matching(&outcomes, |outcome| *outcome == Cancelled::Now));
    shard.transitions().expired.add(count_matching(&outcomes, |outcome| *outcome == Cancelled::Expired));
    Ok(outcomes)
}

/// Reads the reply to one item.
pub(in crate::store) fn parse_item(mut item: ReplyReader) -> Result<Cancelled> {
    Ok(match item.text()?.as_str() {
        "cancelled" => Cancelled::Now,
        "already_cancelled" => Cancelled::AlreadyCancelled,
        "requested" => Cancelled::Requested,
        "expired" => Cancelled::Expired,
        "ended" => Cancelled::Ended(item.state()?),
        "unknown" => Cancelled::Unknown,
        other => return super::unexpected_reply(&SCRIPT, other),
    })
}
