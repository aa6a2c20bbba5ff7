//! Lets another body use the Idempotency-Key of a refused submit.

use super::idempotency::IdempotencyRecord;
use crate::store::error::Result;
use crate::store::redis::reply::ReplyReader;
use crate::store::redis::script::{Script, script};
use crate::store::shard::{Caller, Shard};

pub(super) static SCRIPT: Script = script!(write "refuse_idempotency", []);

/// Marks the open records of submits that stored nothing. Returns whether each was open for this body and task.
pub async fn refuse_idempotency(
    shard: &Shard,
    caller: &mut Caller,
    records: &[IdempotencyRecord],
) -> Result<Vec<bool>> {
    let mut call = shard.call(&SCRIPT, caller);
    call.push_usize(records.len());
    for IdempotencyRecord { key, body, task_id, status: _ } in records {
        call.push(key.as_bytes()).push(body.as_bytes()).push(task_id.as_bytes());
    }
    super::parse_items(call.send().await?, records.len(), parse_item)
}

/// Reads the reply to one item.
pub(in crate::store) fn parse_item(mut item: ReplyReader) -> Result<bool> {
    match item.text()?.as_str() {
        "refused" => Ok(true),
        "kept" => Ok(false),
        other => super::unexpected_reply(&SCRIPT, other),
    }
}
