//! Records of Idempotency-Keys.

use crate::domain::digest::Digest;
use crate::domain::id::TaskId;
use crate::domain::limits;
use crate::store::error::Result;
use crate::store::redis::reply::ReplyReader;
use crate::store::redis::script::{Script, script};
use crate::store::shard::{Caller, ScriptCall, Shard};

pub(super) static SCRIPT: Script = script!(write "idempotency", []);

/// The record to write for a key.
#[derive(Clone, Debug)]
pub struct IdempotencyRecord {
    /// Digest of the key.
    pub key: Digest,
    /// Digest of the request body.
    pub body: Digest,
    /// Id for the new task, or the id that the submit returned.
    pub task_id: TaskId,
    /// `None` opens the record. The status of the response completes it.
    pub status: Option<u16>,
}

/// Outcome for one record.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum IdempotencyOutcome {
    /// The task must be submitted with this id.
    Open(TaskId),
    /// The task was submitted: its id and the status of the response.
    Completed(TaskId, u16),
    /// The key was used with another body.
    BodyMismatch,
}

/// Opens or completes records.
///
/// # Errors
/// [`Full`](crate::store::Error::Full) when Redis has no memory left: nothing was recorded.
pub async fn record_idempotency(
    shard: &Shard,
    caller: &mut Caller,
    records: &[IdempotencyRecord],
) -> Result<Vec<IdempotencyOutcome>> {
    let mut call = shard.growing_call(&SCRIPT, caller);
    push_records(&mut call, records, |record| record.status.map(|status| status.to_string()).unwrap_or_default());
    super::parse_items(call.send().await?, records.len(), parse_item)
}

/// Marks the open records of submits that stored nothing, also when Redis is full. A record of another body or task stays
/// as it is.
pub async fn refuse_idempotency(shard: &Shard, caller: &mut Caller, records: &[IdempotencyRecord]) -> Result<Vec<()>> {
    let mut call = shard.call(&SCRIPT, caller);
    push_records(&mut call, records, |_| "refused".to_owned());
    super::parse_items(call.send().await?, records.len(), |_| Ok(()))
}

fn push_records(
    call: &mut ScriptCall<'_>,
    records: &[IdempotencyRecord],
    status: impl Fn(&IdempotencyRecord) -> String,
) {
    call.push_int(limits::IDEMPOTENCY_TTL_MS).push_usize(records.len());
    for record in records {
        let IdempotencyRecord { key, body, task_id, status: _ } = record;
        call.push(key.as_bytes()).push(body.as_bytes()).push(task_id.as_bytes()).push(status(record));
    }
}

/// Reads the reply to one item.
pub(in crate::store) fn parse_item(mut item: ReplyReader) -> Result<IdempotencyOutcome> {
    Ok(match item.text()?.as_str() {
        "open" => IdempotencyOutcome::Open(item.id()?),
        "completed" => IdempotencyOutcome::Completed(item.id()?, u16::try_from(item.int()?).unwrap_or(200)),
        "mismatch" => IdempotencyOutcome::BodyMismatch,
        other => return super::unexpected_reply(&SCRIPT, other),
    })
}
