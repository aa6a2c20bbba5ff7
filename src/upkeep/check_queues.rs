//! Finds queues with a key of another type, a page of queues in each run, and forgets noted data that can be read again.

use super::job::Context;
use crate::store::Result;
use crate::store::isolation::{check_queues, review_notes};

/// Queues per page.
const PAGE_SIZE: usize = 100;

pub(super) async fn run(context: &mut Context) -> Result<()> {
    let shard = &context.shard;
    review_notes(shard).await?;
    let (found, last) = check_queues(shard, context.last_checked.as_ref(), PAGE_SIZE).await?;
    context.last_checked = last;
    for (queue, keys) in &found {
        shard.unreadable().add_unreadable_keys(shard.index, queue, keys);
    }
    Ok(())
}
