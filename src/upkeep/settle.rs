//! Repairs shards' copies of settings that are behind the master copy: a server may have died between the two.

use std::time::Duration;

use tokio_util::sync::CancellationToken;

use crate::domain::queue::{QueueName, Settings};
use crate::store::ops::configure::configure;
use crate::store::views::queues::{copies, settings};
use crate::store::{Caller, Result, Shard, Store};

const EVERY: Duration = Duration::from_secs(5);
/// Queues looked at in one go.
const PAGE: usize = 500;

pub(super) async fn run(store: Store, stop: CancellationToken) {
    // A caller is one pump: its numbers count per shard, and only have to rise.
    let mut caller = Caller::new();
    loop {
        if let Err(error) = settle(&store, &mut caller).await {
            tracing::debug!(%error, "settings could not be compared");
        }
        tokio::select! {
            () = tokio::time::sleep(EVERY) => {}
            () = stop.cancelled() => return,
        }
    }
}

async fn settle(store: &Store, caller: &mut Caller) -> Result<()> {
    let mut after = None;
    loop {
        let masters = settings(store, after.as_ref(), PAGE).await?;
        let names: Vec<_> = masters.iter().map(|(name, _, _)| name.clone()).collect();
        for shard in store.shards() {
            // One that is away does not keep the others from theirs.
            if let Err(error) = bring_up(shard, caller, &names, &masters).await {
                tracing::debug!(%error, shard = shard.index, "settings could not be compared");
            }
        }
        if masters.len() < PAGE {
            return Ok(());
        }
        after = names.into_iter().next_back();
    }
}

async fn bring_up(
    shard: &Shard,
    caller: &mut Caller,
    names: &[QueueName],
    masters: &[(QueueName, i64, Settings)],
) -> Result<()> {
    let copies = copies(shard, names).await?;
    for (name, version, settings) in masters {
        if copies.get(name).is_none_or(|copy| copy < version) {
            configure(shard, caller, name, *version, settings).await?;
        }
    }
    Ok(())
}
