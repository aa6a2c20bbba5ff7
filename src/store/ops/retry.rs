//! Retries dead, cancelled and expired tasks at a client's request.

use crate::domain::id::TaskId;
use crate::domain::limits;
use crate::domain::state::State;
use crate::store::error::Result;
use crate::store::metrics::count_matching;
use crate::store::redis::reply::ReplyReader;
use crate::store::redis::script::{Script, script};
use crate::store::shard::{Caller, Shard};

pub(super) static SCRIPT: Script = script!(write "retry", ["due", "task", "write_task", "events", "counts", "transition", "front", "piece_functions", ("local function use_pieces()" ["pieces"]), ("local function define_passes()" ["passes"]), "keyed_member", "wheel", "waiting", "dequeue", "stop_waiting", "dedupe", "free_dedupe", "index_end", "finish_task", "expiry", "unindex_end", "holder"]);

/// Outcome for one task.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Retried {
    /// The task is ready.
    Ready,
    /// The task has not ended, or it is completed.
    NotRetryable(State),
    /// Another task holds the dedupe key of the task, which is in this state.
    DedupeKeyTaken(State),
    /// There is no such task.
    Unknown,
}

/// Makes dead, cancelled and expired tasks ready, with fresh attempts.
pub async fn retry(shard: &Shard, caller: &mut Caller, ids: &[TaskId]) -> Result<Vec<Retried>> {
    let mut call = shard.call(&SCRIPT, caller);
    call.push_int(limits::RETAIN_OTHER_MS).push_usize(ids.len());
    for id in ids {
        call.push(id.as_bytes());
    }
    let (outcomes, expired): (Vec<Retried>, Vec<u64>) =
        super::parse_items(call.send().await?, ids.len(), parse_item)?.into_iter().unzip();
    shard.transitions().expired.add(expired.into_iter().sum());
    shard.transitions().retried.add(count_matching(&outcomes, |outcome| *outcome == Retried::Ready));
    Ok(outcomes)
}

/// Reads the reply to one item: the outcome, and how many tasks it found expired.
pub(in crate::store) fn parse_item(mut item: ReplyReader) -> Result<(Retried, u64)> {
    let outcome = match item.text()?.as_str() {
        "retried" => Retried::Ready,
        "not_retryable" => Retried::NotRetryable(item.state()?),
        "dedupe_key_taken" => Retried::DedupeKeyTaken(item.state()?),
        "unknown" => Retried::Unknown,
        other => return super::unexpected_reply(&SCRIPT, other),
    };
    Ok((outcome, super::trailing_count(&mut item)?))
}
