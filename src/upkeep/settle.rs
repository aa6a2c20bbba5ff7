//! Repairs shards' copies of settings that are behind the master copy: a server may have died between the two.

use std::time::Duration;

use tokio_util::sync::CancellationToken;

use crate::store::ops::configure::configure;
use crate::store::views::queues::{copies, settings};
use crate::store::{Caller, Result, Store};

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
            let copies = copies(shard, &names).await?;
            for (name, version, settings) in &masters {
                if copies.get(name).is_none_or(|copy| copy < version) {
                    configure(shard, caller, name, *version, settings).await?;
                }
            }
        }
        if masters.len() < PAGE {
            return Ok(());
        }
        after = names.into_iter().next_back();
    }
}
