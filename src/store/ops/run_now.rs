//! Makes scheduled tasks ready before their time, at a client's request.

use crate::domain::id::TaskId;
use crate::domain::limits;
use crate::domain::state::State;
use crate::store::error::Result;
use crate::store::metrics::count_matching;
use crate::store::redis::reply::ReplyReader;
use crate::store::redis::script::{Script, script};
use crate::store::shard::{Caller, Shard};

pub(super) static SCRIPT: Script = script!(write "run_now", ["due", "task", "write_task", "events", "counts", "transition", "front", "piece_functions", ("local function use_pieces()" ["pieces"]), ("local function define_passes()" ["passes"]), "keyed_member", "wheel", "dequeue", "stop_waiting", "dedupe", "free_dedupe", "index_end", "finish_task", "expiry"]);

/// Outcome for one task.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum RunNow {
    /// The task was scheduled, and is ready now.
    Ready,
    /// The task waits for the end of another, and is ready then.
    Waits,
    /// The task had been ready before.
    AlreadyReady,
    /// The task waited past its time of expiry, and is expired now.
    Expired,
    /// The task is leased or has ended.
    NotWaiting(State),
    /// There is no such task.
    Unknown,
}

/// Makes scheduled tasks ready.
pub async fn run_now(shard: &Shard, caller: &mut Caller, ids: &[TaskId]) -> Result<Vec<RunNow>> {
    let mut call = shard.call(&SCRIPT, caller);
    call.push_int(limits::RETAIN_OTHER_MS).push_usize(ids.len());
    for id in ids {
        call.push(id.as_bytes());
    }
    let outcomes = super::parse_items(call.send().await?, ids.len(), parse_item)?;
    shard.transitions().run_now.add(count_matching(&outcomes, |outcome| *outcome == RunNow::Ready));
    shard.transitions().expired.add(count_matching(&outcomes, |outcome| *outcome == RunNow::Expired));
    Ok(outcomes)
}

/// Reads the reply to one item.
pub(in crate::store) fn parse_item(mut item: ReplyReader) -> Result<RunNow> {
    Ok(match item.text()?.as_str() {
        "run" => RunNow::Ready,
        "waits" => RunNow::Waits,
        "already_ready" => RunNow::AlreadyReady,
        "expired" => RunNow::Expired,
        "not_waiting" => RunNow::NotWaiting(item.state()?),
        "unknown" => RunNow::Unknown,
        other => return super::unexpected_reply(&SCRIPT, other),
    })
}
