//! Announces the waiters of this server to the other servers.

use std::sync::Arc;
use std::time::Duration;

use tokio_util::sync::CancellationToken;

use super::waiters::Waiters;
use crate::store::Shard;
use crate::store::notify::wakeups::announce_waiters;

/// The interval of announcements. A queue that gets its first waiter is announced at once.
const INTERVAL: Duration = Duration::from_secs(1);
/// The least pause between two announcements.
const MIN_PAUSE: Duration = Duration::from_millis(100);

/// Publishes announcements in the first shard until `stop`.
pub(super) async fn run(first_shard: Shard, waiters: Arc<Waiters>, stop: CancellationToken) {
    let announce_all = async {
        loop {
            tokio::select! {
                () = waiters.has_news() => {}
                () = tokio::time::sleep(INTERVAL) => {}
            }
            if let Some((server, counts)) = waiters.announcement()
                && let Err(error) = announce_waiters(&first_shard, server, &counts).await
            {
                tracing::debug!(%error, "announcing the waiters failed");
            }
            tokio::time::sleep(MIN_PAUSE).await;
        }
    };
    tokio::select! {
        () = announce_all => {}
        () = stop.cancelled() => {}
    }
}
