//! Deletes tasks.

use crate::domain::id::TaskId;
use crate::domain::limits;
use crate::domain::state::State;
use crate::store::error::{Error, Result};
use crate::store::metrics::count_matching;
use crate::store::redis::reply::ReplyReader;
use crate::store::redis::script::{Script, script};
use crate::store::shard::{Caller, Shard};

pub(super) static SCRIPT: Script = script!(write "delete", ["due", "task", "write_task", "events", "counts", "transition", "front", "piece_functions", ("local function use_pieces()" ["pieces"]), ("local function define_passes()" ["passes"]), "keyed_member", "wheel", "dequeue", "stop_waiting", "dedupe", "free_dedupe", "index_end", "finish_task", "expiry", "unindex_end", "delete_task"]);

/// Why a task is deleted, which decides the states that allow it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum DeleteReason {
    /// A client asks for it: the task must have ended.
    Requested,
    /// The retention of the ended task has elapsed.
    RetentionElapsed,
    /// The memory of Redis is short, and the task ended at least 10 s ago.
    MemoryShort,
    /// Its queue has more ended tasks than are kept, and the task ended at least 10 s ago.
    BeyondMaximum,
    /// Its queue is purged of tasks in these states; a leased task is never deleted.
    Purge(Vec<State>),
}

/// Outcome for one task.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Deleted {
    /// The task is deleted now.
    Now,
    /// The task's state, or its retention, does not allow it.
    NotAllowed(State),
    /// There is no such task.
    Unknown,
}

/// Deletes those tasks that `reason` allows to delete.
pub async fn delete(shard: &Shard, caller: &mut Caller, reason: &DeleteReason, ids: &[TaskId]) -> Result<Vec<Deleted>> {
    let states: Vec<State> = match reason {
        DeleteReason::Requested
        | DeleteReason::RetentionElapsed
        | DeleteReason::MemoryShort
        | DeleteReason::BeyondMaximum => State::ALL.into_iter().filter(|state| state.has_ended()).collect(),
        DeleteReason::Purge(states) => states.clone(),
    };
    let mut call = shard.call(&SCRIPT, caller);
    call.push(match reason {
        DeleteReason::Requested | DeleteReason::Purge(_) => "",
        DeleteReason::RetentionElapsed => "1",
        DeleteReason::MemoryShort | DeleteReason::BeyondMaximum => "least",
    });
    call.push_int(limits::RETAIN_MS.min).push_usize(states.len());
    for state in states {
        call.push(state.as_str());
    }
    call.push_usize(ids.len());
    for id in ids {
        call.push(id.as_bytes());
    }
    let outcomes = super::parse_items(call.send().await?, ids.len(), parse_item)?;
    let deleted = count_matching(&outcomes, |outcome| *outcome == Deleted::Now);
    shard.transitions().deleted.add(deleted);
    let history = &shard.client().metrics().history_deleted;
    match reason {
        DeleteReason::Requested | DeleteReason::RetentionElapsed | DeleteReason::Purge(_) => {}
        DeleteReason::MemoryShort => history.memory_short.add(deleted),
        DeleteReason::BeyondMaximum => history.max_ended.add(deleted),
    }
    Ok(outcomes)
}

/// Deletes tasks, and passes over unreadable ones. Returns the number deleted.
pub(in crate::store) async fn delete_readable(
    shard: &Shard,
    caller: &mut Caller,
    reason: &DeleteReason,
    ids: &[TaskId],
) -> Result<usize> {
    let (mut deleted, mut parts) = (0, vec![ids]);
    while let Some(part) = parts.pop() {
        match delete(shard, caller, reason, part).await {
            Ok(outcomes) => deleted += outcomes.iter().filter(|outcome| **outcome == Deleted::Now).count(),
            Err(Error::Unexpected(_)) if part.len() > 1 => {
                let (first, second) = part.split_at(part.len() / 2);
                parts.extend([second, first]);
            }
            // An unreadable task alone.
            Err(Error::Unexpected(_)) if ids.len() > 1 => {}
            Err(error) => return Err(error),
        }
    }
    Ok(deleted)
}

/// Reads the reply to one item.
pub(in crate::store) fn parse_item(mut item: ReplyReader) -> Result<Deleted> {
    Ok(match item.text()?.as_str() {
        "deleted" => Deleted::Now,
        "not_allowed" => Deleted::NotAllowed(item.state()?),
        "unknown" => Deleted::Unknown,
        other => return super::unexpected_reply(&SCRIPT, other),
    })
}
