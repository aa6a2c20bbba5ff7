//! Retention: deletes ended tasks whose retention has elapsed.

use super::job::{Context, Turn};
use super::stale_entries::correct_entries;
use crate::store::Result;
use crate::store::ops::delete::{DeleteReason, Deleted, delete};
use crate::store::ops::purge_ended::purge_ended;
use crate::store::views::page::past_retention;

pub(super) async fn step(context: &mut Context, turn: &Turn) -> Result<usize> {
    let ids = past_retention(&context.shard, turn.now, turn.limit).await?;
    if !ids.is_empty() {
        let results = delete(&context.shard, &mut context.caller, &DeleteReason::RetentionElapsed, &ids).await?;
        let deleted = results.iter().filter(|result| **result == Deleted::Now).count();
        if deleted > 0 {
            return Ok(deleted);
        }
    }
    // A step counts if it has moved on, also past tasks with their own retention.
    let purged = purge_ended(&context.shard, &mut context.caller, turn.limit).await?;
    if purged.was_due {
        return Ok(usize::try_from(purged.deleted).unwrap_or(usize::MAX).max(1));
    }
    correct_entries(context, "retention", turn).await
}
