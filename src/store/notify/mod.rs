//! Messages that scripts publish: wake-ups and task events.

pub mod events;
pub mod wakeups;

use super::permissions::report_channels;
use super::redis::pubsub::{self, PubSubMessage};
use super::shard::{Shard, Store};

/// Subscribes to one channel of each shard until the future is dropped, and again when another data set is accepted.
async fn subscribe<T>(store: &Store, channel: fn(&Shard) -> String, on_message: T)
where
    T: Fn(PubSubMessage) + Clone + Send + Sync + 'static,
{
    let mut scope = store.channel_scope();
    loop {
        scope.mark_unchanged();
        let channels = store.shards().iter().map(channel).collect();
        let report = |is_denied| report_channels(store, "ssubscribe", is_denied);
        tokio::select! {
            () = pubsub::subscribe(store.client(), channels, on_message.clone(), report) => {}
            _ = scope.changed() => on_message(PubSubMessage::Interrupted),
        }
    }
}
