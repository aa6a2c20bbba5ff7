//! Updates copies of queue settings that are older than the settings: a server may have stopped between the two writes.

use super::job::Context;
use crate::domain::queue::{QueueName, QueueSettings};
use crate::store::ops::apply_settings::apply_settings;
use crate::store::views::queues::{copy_versions, settings_page};
use crate::store::{Caller, Result, Shard};

/// Queues per page.
const PAGE_SIZE: usize = 500;

pub(super) async fn run(context: &mut Context) -> Result<()> {
    let mut after = None;
    let mut outcome = Ok(());
    loop {
        let page = settings_page(&context.store, after.as_ref(), PAGE_SIZE).await?;
        let names: Vec<_> = page.iter().map(|(name, _, _)| name.clone()).collect();
        // An unavailable shard does not keep the others from being updated.
        for shard in context.store.shards() {
            outcome = outcome.and(sync_shard(shard, &mut context.caller, &names, &page).await);
        }
        if page.len() < PAGE_SIZE {
            return outcome;
        }
        after = names.into_iter().next_back();
    }
}

async fn sync_shard(
    shard: &Shard,
    caller: &mut Caller,
    names: &[QueueName],
    page: &[(QueueName, i64, QueueSettings)],
) -> Result<()> {
    let copies = copy_versions(shard, names).await?;
    for (name, version, settings) in page {
        if copies.get(name).is_none_or(|copy| copy < version) {
            apply_settings(shard, caller, name, *version, settings).await?;
        }
    }
    Ok(())
}
