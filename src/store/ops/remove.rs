//! Remove: tasks are forgotten.

use crate::domain::id::TaskId;
use crate::domain::state::State;
use crate::store::error::Result;
use crate::store::meters::tally;
use crate::store::reply::Items;
use crate::store::script::{Script, script};
use crate::store::shard::{Caller, Shard};

pub(super) static SCRIPT: Script =
    script!("remove", flags = " flags=allow-oom", ["call", "stage", "news", "wheel", "lease", "waiting"]);

/// Why a task is to go.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Reason {
    /// A client has no more use for it: it must have ended.
    Deleted,
    /// Its time of retention has passed.
    Retained,
    /// Its queue is purged of tasks in these states; a leased one never goes.
    Purged(Vec<State>),
}

/// What became of it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Removed {
    /// It is gone.
    Gone,
    /// Its state, or its time, does not allow it.
    Refused(State),
    /// There was none.
    Unknown,
}

/// Forgets tasks.
pub async fn remove(shard: &Shard, caller: &mut Caller, reason: &Reason, ids: &[TaskId]) -> Result<Vec<Removed>> {
    let ended = || State::ALL.into_iter().filter(|state| state.has_ended()).collect();
    let states: Vec<State> = match reason {
        Reason::Deleted | Reason::Retained => ended(),
        Reason::Purged(states) => states.clone(),
    };
    let mut call = shard.call(&SCRIPT, caller);
    call.arg(if *reason == Reason::Retained { "1" } else { "" }).count(states.len());
    for state in states {
        call.arg(state.as_str());
    }
    call.count(ids.len());
    for id in ids {
        call.arg(id.as_bytes());
    }
    let answers = super::answers(call.send().await?, ids.len(), answer)?;
    shard.transitions().removed.add(tally(&answers, |one| *one == Removed::Gone));
    Ok(answers)
}

/// Reads the answer to one item.
pub(in crate::store) fn answer(mut item: Items) -> Result<Removed> {
    Ok(match item.text()?.as_str() {
        "removed" => Removed::Gone,
        "refused" => Removed::Refused(item.state()?),
        "unknown" => Removed::Unknown,
        other => return super::unexpected(&SCRIPT, other),
    })
}
