//! Cancel: a client calls tasks off.

use crate::domain::id::TaskId;
use crate::domain::limits;
use crate::domain::state::State;
use crate::store::error::Result;
use crate::store::meters::tally;
use crate::store::reply::Items;
use crate::store::script::{Script, script};
use crate::store::shard::{Caller, Shard};

pub(super) static SCRIPT: Script =
    script!("cancel", flags = " flags=allow-oom", ["call", "stage", "news", "wheel", "lease", "waiting"]);

/// What became of it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Cancelled {
    /// It is cancelled.
    Now,
    /// It had been before.
    Before,
    /// It is leased: its worker will learn of it.
    Flagged,
    /// It had ended otherwise.
    Ended(State),
    /// No such task.
    Unknown,
}

/// Calls tasks off.
pub async fn cancel(shard: &Shard, caller: &mut Caller, ids: &[TaskId]) -> Result<Vec<Cancelled>> {
    let mut call = shard.call(&SCRIPT, caller);
    call.int(limits::RETAIN_OTHER_MS).count(ids.len());
    for id in ids {
        call.arg(id.as_bytes());
    }
    let answers = super::answers(call.send().await?, ids.len(), answer)?;
    shard.transitions().cancelled.add(tally(&answers, |one| *one == Cancelled::Now));
    Ok(answers)
}

/// Reads the answer to one item.
pub(in crate::store) fn answer(mut item: Items) -> Result<Cancelled> {
    Ok(match item.text()?.as_str() {
        "cancelled" => Cancelled::Now,
        "before" => Cancelled::Before,
        "flagged" => Cancelled::Flagged,
        "ended" => Cancelled::Ended(item.state()?),
        "unknown" => Cancelled::Unknown,
        other => return super::unexpected(&SCRIPT, other),
    })
}
