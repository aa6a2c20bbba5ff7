//! Remember: what an Idempotency-Key stands for.

use crate::domain::digest::Digest;
use crate::domain::id::TaskId;
use crate::domain::limits;
use crate::store::error::Result;
use crate::store::reply::Items;
use crate::store::script::{Script, script};
use crate::store::shard::{Caller, Shard};

pub(super) static SCRIPT: Script = script!("remember", flags = "", ["call", "stage"]);

/// What to note of a key.
#[derive(Clone, Debug)]
pub struct Note {
    /// Of the key and whose it is.
    pub key: Digest,
    /// Of the body that came with it.
    pub body: Digest,
    /// The task's id: to be, or as it came out.
    pub id: TaskId,
    /// `None` opens the record; the status of the outcome closes it.
    pub status: Option<u16>,
}

/// What the record says.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Remembered {
    /// The task is to be submitted with this id.
    Open(TaskId),
    /// It was: the task's id and the status that was answered.
    Closed(TaskId, u16),
    /// The key came with another body before.
    Mismatch,
}

/// Opens or closes records.
///
/// # Errors
/// [`Full`](crate::store::Error::Full) when Redis has no memory left: nothing was noted.
pub async fn remember(shard: &Shard, caller: &mut Caller, notes: &[Note]) -> Result<Vec<Remembered>> {
    let mut call = shard.call(&SCRIPT, caller);
    call.int(limits::IDEMPOTENCY_MS).count(notes.len());
    for Note { key, body, id, status } in notes {
        call.arg(key.as_bytes())
            .arg(body.as_bytes())
            .arg(id.as_bytes())
            .arg(status.map(|status| status.to_string()).unwrap_or_default());
    }
    super::answers(call.send().await?, notes.len(), answer)
}

/// Reads the answer to one item.
pub(in crate::store) fn answer(mut item: Items) -> Result<Remembered> {
    Ok(match item.text()?.as_str() {
        "open" => Remembered::Open(item.id()?),
        "closed" => Remembered::Closed(item.id()?, u16::try_from(item.int()?).unwrap_or(200)),
        "mismatch" => Remembered::Mismatch,
        other => return super::unexpected(&SCRIPT, other),
    })
}
