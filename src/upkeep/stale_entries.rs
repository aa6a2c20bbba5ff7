//! Corrects entries of an index by time that no longer match their tasks, so that they do not come before others again.

use super::job::{Context, Turn};
use crate::store::Result;
use crate::store::invariant::Invariant;
use crate::store::isolation::due_entries;
use crate::store::ops::repair::repair;

/// The maximum number of entries corrected in a step.
const MAX_ENTRIES: usize = 50;

/// Corrects the first entries of an index that are due, and of which no task could be processed. Returns their number.
pub(super) async fn correct_entries(context: &mut Context, index: &str, turn: &Turn) -> Result<usize> {
    let entries = due_entries(&context.shard, index, turn.now, turn.limit.min(MAX_ENTRIES)).await?;
    if entries.is_empty() {
        return Ok(0);
    }
    let invariant = |member| Invariant::IndexEntry { member, index: index.into() };
    let invariants: Vec<Invariant> = entries.into_iter().map(|entry| invariant(entry.member)).collect();
    let corrected = repair(&context.shard, &mut context.caller, &invariants).await?;
    Ok(corrected.iter().filter(|violations| !violations.is_empty()).count())
}
