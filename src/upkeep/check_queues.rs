//! Finds `callers` and keys of queues that have another type, and unreadable records, a page of queues in each run. Forgets
//! noted data that can be read again.

use super::job::Context;
use crate::store::Result;
use crate::store::isolation::{check_queues, review_notes, unreadable_callers, unreadable_shard_record};

/// Queues per page.
const PAGE_SIZE: usize = 100;

pub(super) async fn run(context: &mut Context) -> Result<()> {
    let shard = &context.shard;
    review_notes(shard).await?;
    if let Some(reason) = unreadable_callers(shard).await?.or(unreadable_shard_record(shard).await?) {
        shard.unreadable().add_queue(shard.index, None, &reason, true);
    }
    let (found, last) = check_queues(shard, context.last_checked.as_ref(), PAGE_SIZE).await?;
    context.last_checked = last;
    for (queue, keys) in &found {
        shard.unreadable().add_unreadable_keys(shard.index, queue, keys);
    }
    Ok(())
}
