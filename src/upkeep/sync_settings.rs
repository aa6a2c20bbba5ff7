//! Repairs shards' copies of settings that are behind the master copy: a server may have died between the two.

use std::time::Duration;

use tokio_util::sync::CancellationToken;

use crate::domain::queue::{QueueName, QueueSettings};
use crate::store::ops::apply_settings::apply_settings;
use crate::store::views::queues::{copy_versions, settings};
use crate::store::{Caller, Result, Shard, Store};

const INTERVAL: Duration = Duration::from_secs(5);
/// Queues looked at in one go.
const PAGE_SIZE: usize = 500;

pub(super) async fn run(store: Store, stop: CancellationToken) {
    // A caller is one pump: its numbers count per shard, and only have to rise.
    let mut caller = Caller::new();
    loop {
        if let Err(error) = sync_settings(&store, &mut caller).await {
            tracing::debug!(%error, "settings could not be compared");
        }
        tokio::select! {
            () = tokio::time::sleep(INTERVAL) => {}
            () = stop.cancelled() => return,
        }
    }
}

async fn sync_settings(store: &Store, caller: &mut Caller) -> Result<()> {
    let mut after = None;
    loop {
        let stored = settings(store, after.as_ref(), PAGE_SIZE).await?;
        let names: Vec<_> = stored.iter().map(|(name, _, _)| name.clone()).collect();
        for shard in store.shards() {
            // One that is away does not keep the others from theirs.
            if let Err(error) = sync_shard(shard, caller, &names, &stored).await {
                tracing::debug!(%error, shard = shard.index, "settings could not be compared");
            }
        }
        if stored.len() < PAGE_SIZE {
            return Ok(());
        }
        after = names.into_iter().next_back();
    }
}

async fn sync_shard(
    shard: &Shard,
    caller: &mut Caller,
    names: &[QueueName],
    stored: &[(QueueName, i64, QueueSettings)],
) -> Result<()> {
    let copies = copy_versions(shard, names).await?;
    for (name, version, settings) in stored {
        if copies.get(name).is_none_or(|copy| copy < version) {
            apply_settings(shard, caller, name, *version, settings).await?;
        }
    }
    Ok(())
}
