//! Looks from time to time who holds how many leases. All servers do; the first in each 5 s counts.

use std::time::Duration;

use tokio_util::sync::CancellationToken;

use crate::store::ops::sample_leases::sample_leases;
use crate::store::{Caller, Store};

const INTERVAL: Duration = Duration::from_secs(5);

pub(super) async fn run(store: Store, stop: CancellationToken) {
    let mut caller = Caller::new();
    loop {
        let mut sampled_at = None;
        for shard in store.shards() {
            match sample_leases(shard, &mut caller, sampled_at).await {
                Ok(time) => sampled_at = sampled_at.or(Some(time)),
                // One that is away does not keep the others from theirs.
                Err(error) => tracing::debug!(%error, shard = shard.index, "who holds leases could not be seen"),
            }
        }
        tokio::select! {
            () = tokio::time::sleep(INTERVAL) => {}
            () = stop.cancelled() => return,
        }
    }
}
