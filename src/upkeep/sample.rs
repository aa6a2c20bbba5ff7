//! Looks from time to time who holds how many leases. All servers do; the first in each 5 s counts.

use std::time::Duration;

use tokio_util::sync::CancellationToken;

use crate::store::ops::sample::sample;
use crate::store::{Caller, Store};

const EVERY: Duration = Duration::from_secs(5);

pub(super) async fn run(store: Store, stop: CancellationToken) {
    let mut caller = Caller::new();
    loop {
        let mut at = None;
        for shard in store.shards() {
            match sample(shard, &mut caller, at).await {
                Ok(since) => at = at.or(Some(since)),
                // One that is away does not keep the others from theirs.
                Err(error) => tracing::debug!(%error, shard = shard.index, "who holds leases could not be seen"),
            }
        }
        tokio::select! {
            () = tokio::time::sleep(EVERY) => {}
            () = stop.cancelled() => return,
        }
    }
}
