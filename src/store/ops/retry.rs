//! Retry: a client wants tasks that ended without success run again.

use crate::domain::id::TaskId;
use crate::domain::state::State;
use crate::store::error::Result;
use crate::store::meters::tally;
use crate::store::reply::Items;
use crate::store::script::{Script, script};
use crate::store::shard::{Caller, Shard};

pub(super) static SCRIPT: Script =
    script!("retry", flags = " flags=allow-oom", ["call", "stage", "news", "wheel", "lease"]);

/// What became of it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Revived {
    /// It is ready.
    Ready,
    /// It has not ended, or it is completed.
    Unretryable(State),
    /// Another task holds its dedupe key.
    KeyHeld(State),
    /// No such task.
    Unknown,
}

/// Makes dead, cancelled and expired tasks ready, with fresh attempts.
pub async fn retry(shard: &Shard, caller: &mut Caller, ids: &[TaskId]) -> Result<Vec<Revived>> {
    let mut call = shard.call(&SCRIPT, caller);
    call.count(ids.len());
    for id in ids {
        call.arg(id.as_bytes());
    }
    let answers = super::answers(call.send().await?, ids.len(), answer)?;
    shard.transitions().retried.add(tally(&answers, |one| *one == Revived::Ready));
    Ok(answers)
}

/// Reads the answer to one item.
pub(in crate::store) fn answer(mut item: Items) -> Result<Revived> {
    Ok(match item.text()?.as_str() {
        "revived" => Revived::Ready,
        "unretryable" => Revived::Unretryable(item.state()?),
        "key_held" => Revived::KeyHeld(item.state()?),
        "unknown" => Revived::Unknown,
        other => return super::unexpected(&SCRIPT, other),
    })
}
