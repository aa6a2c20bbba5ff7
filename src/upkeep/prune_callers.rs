//! Forgets the last calls of pumps that are gone.

use std::time::Duration;

use tokio_util::sync::CancellationToken;

use crate::store::ops::prune_callers::prune_callers;
use crate::store::{Caller, Result, Store};

const INTERVAL: Duration = Duration::from_secs(600);

pub(super) async fn run(store: Store, stop: CancellationToken) {
    let mut caller = Caller::new();
    loop {
        if let Err(error) = prune_all(&store, &mut caller).await {
            tracing::debug!(%error, "old calls could not be forgotten");
        }
        tokio::select! {
            () = tokio::time::sleep(INTERVAL) => {}
            () = stop.cancelled() => return,
        }
    }
}

async fn prune_all(store: &Store, caller: &mut Caller) -> Result<()> {
    for shard in store.shards() {
        let mut cursor = "0".to_owned();
        loop {
            cursor = prune_callers(shard, caller, &cursor).await?;
            if cursor == "0" {
                break;
            }
        }
    }
    Ok(())
}
