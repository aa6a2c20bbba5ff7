//! Submit: new tasks enter the store.

use crate::domain::id::TaskId;
use crate::domain::limits;
use crate::domain::state::State;
use crate::domain::task::{DedupeMode, NewTask, Start};
use crate::domain::time::Millis;
use crate::store::error::Result;
use crate::store::meters::tally;
use crate::store::record;
use crate::store::reply::Items;
use crate::store::script::{Script, script};
use crate::store::shard::{Call, Caller, Shard};

pub(super) static SCRIPT: Script = script!("submit", flags = "", ["call", "stage", "news", "sums", "measure", "wheel"]);

/// What became of a submit.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Submitted {
    /// It is stored.
    Created {
        /// Ready or scheduled.
        state: State,
        /// Redis' time.
        at: Millis,
        /// When it can be claimed, if not at once.
        run_at: Option<Millis>,
        /// When it expires.
        expires_at: Option<Millis>,
    },
    /// The id was known: an earlier sending stored it.
    Known,
    /// Its dedupe key is held by this task.
    Kept(TaskId),
    /// This task, which held its dedupe key, has taken over its content.
    Replaced(TaskId),
    /// `run_at` lies too far from Redis' clock.
    TooFar,
}

/// Stores `tasks`; no two with one dedupe key.
///
/// # Errors
/// [`Full`](crate::store::Error::Full) when Redis has no memory left: nothing was stored.
/// [`Unconfirmed`](crate::store::Error::Unconfirmed) when they are stored, but on fewer replicas than wanted.
pub async fn submit(shard: &Shard, caller: &mut Caller, tasks: &[NewTask]) -> Result<Vec<Submitted>> {
    let mut call = shard.call(&SCRIPT, caller);
    call.int(limits::RUN_AT_WITHIN_MS).count(tasks.len());
    for task in tasks {
        call.arg(task.id.as_bytes()).arg(task.queue.as_str()).int(task.priority).int(task.slot.number());
        options(&mut call, task);
        let fields = record::fields(task)?;
        call.count(fields.len());
        for (name, value) in fields {
            call.arg(name).arg(value);
        }
    }
    let stored = super::answers(call.send().await?, tasks.len(), answer)?;
    shard.transitions().submitted.add(tally(&stored, |one| matches!(one, Submitted::Created { .. })));
    // Also where nothing is new: what is known may be from a sending that was not confirmed.
    call.confirm().await?;
    Ok(stored)
}

/// What few tasks have: none of it, or all of it.
fn options(call: &mut Call<'_>, task: &NewTask) {
    let NewTask { start, expires_in_ms, dedupe, .. } = task;
    if *start == Start::In(0) && expires_in_ms.is_none() && dedupe.is_none() {
        call.count(0);
        return;
    }
    let (delay_ms, run_at) = match start {
        Start::In(ms) => (*ms, String::new()),
        Start::At(time) => (0, time.0.to_string()),
    };
    call.count(6).int(delay_ms).arg(run_at).arg(expires_in_ms.map(|ms| ms.to_string()).unwrap_or_default());
    match dedupe {
        None => call.arg("").arg("").arg(""),
        Some(dedupe) => call
            .arg(dedupe.digest.as_bytes())
            .arg(match dedupe.mode {
                DedupeMode::Keep => "keep",
                DedupeMode::Replace => "replace",
                DedupeMode::Debounce => "debounce",
            })
            .arg(dedupe.window_ms.map(|ms| ms.to_string()).unwrap_or_default()),
    };
}

/// Reads the answer to one item.
pub(in crate::store) fn answer(mut item: Items) -> Result<Submitted> {
    Ok(match item.text()?.as_str() {
        "created" => Submitted::Created {
            state: item.state()?,
            at: Millis(item.int()?),
            run_at: item.time()?,
            expires_at: item.time()?,
        },
        "known" => Submitted::Known,
        "kept" => Submitted::Kept(item.id()?),
        "replaced" => Submitted::Replaced(item.id()?),
        "too_far" => Submitted::TooFar,
        other => return super::unexpected(&SCRIPT, other),
    })
}
