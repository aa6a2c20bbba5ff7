//! Pub/sub: subscribes to one channel of each shard, on a connection of its own.
//!
//! Messages are lost while the connection is broken. [`PubSubMessage::Interrupted`] says so at once, and
//! [`PubSubMessage::Gap`] after each new subscription.

use std::convert::Infallible;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use deadpool_redis::redis::{PushInfo, PushKind};
use futures_util::future::join_all;
use tokio::sync::mpsc;

use super::client::Client;
use super::reply::bytes;
use crate::store::error::{Error, Result};

/// A message of a subscription.
#[derive(Debug)]
pub(in crate::store) enum PubSubMessage {
    /// Messages of all channels may be lost from now on, until the next gap.
    Interrupted,
    /// The channels of these shards are subscribed. Messages may have been lost before this point.
    Gap {
        /// Indexes of the shards.
        shards: Vec<usize>,
    },
    /// A message.
    Message {
        /// The index of the channel, which is that of its shard.
        shard: usize,
        /// The message as it was published.
        payload: Vec<u8>,
    },
}

const RETRY_DELAY: Duration = Duration::from_millis(200);
/// Pause after Redis has denied the channels.
const DENIED_DELAY: Duration = Duration::from_secs(1);
/// Renewed subscriptions within this time are reported as one gap.
const COALESCE_DELAY: Duration = Duration::from_millis(20);

/// Subscribes to `channels`, one of each shard, until the future is dropped. Reconnects after every break.
///
/// `on_message` runs where the connection is read, so that messages never queue up: it must return fast. (The client
/// of a Cluster has an unbounded queue of its own in between.) `on_denial` gets whether the user of Redis lacks the
/// permission, after each attempt that shows it.
pub(in crate::store) async fn subscribe<T>(
    client: &Client,
    channels: Vec<String>,
    on_message: T,
    on_denial: impl Fn(bool),
) where
    T: Fn(PubSubMessage) + Clone + Send + Sync + 'static,
{
    loop {
        let outcome = run_subscription(client, &channels, on_message.clone(), &on_denial).await;
        on_message(PubSubMessage::Interrupted);
        if let Err(error) = &outcome {
            tracing::debug!(%error, "pub/sub subscription failed");
        }
        let is_denied = matches!(outcome, Err(Error::Denied(_)));
        if is_denied {
            on_denial(true);
        }
        tokio::time::sleep(if is_denied { DENIED_DELAY } else { RETRY_DELAY }).await;
    }
}

/// Returns when the connection must be opened again.
async fn run_subscription<T>(
    client: &Client,
    channels: &[String],
    on_message: T,
    on_denial: impl Fn(bool),
) -> Result<()>
where
    T: Fn(PubSubMessage) + Clone + Send + Sync + 'static,
{
    let (control_sender, mut control) = mpsc::unbounded_channel();
    let (channel_names, deliver) = (channels.to_vec(), on_message.clone());
    let interruptions = Arc::new(AtomicU64::new(0));
    let interruptions_seen = interruptions.clone();
    let on_push = move |push: PushInfo| -> std::result::Result<(), Infallible> {
        match push.kind {
            PushKind::SMessage => {
                if let Some(message) = parse_push(push, &channel_names) {
                    deliver(message);
                }
            }
            kind => {
                if matches!(kind, PushKind::Disconnection | PushKind::SUnsubscribe) {
                    interruptions.fetch_add(1, Ordering::Relaxed);
                    deliver(PubSubMessage::Interrupted);
                }
                drop(control_sender.send(kind));
            }
        }
        Ok(())
    };
    let connection = client.topology().subscriber(on_push).await?;
    let (mut unsubscribed, mut pending_confirmations): (Vec<usize>, _) = ((0..channels.len()).collect(), 0);
    let (mut is_resubscribed, mut is_denied) = (false, false);
    loop {
        if !unsubscribed.is_empty() {
            let interruptions_before = interruptions_seen.load(Ordering::Relaxed);
            let attempted = std::mem::take(&mut unsubscribed);
            let attempts = attempted.iter().filter_map(|shard| channels.get(*shard)).map(|channel| {
                let mut connection = connection.clone();
                async move { connection.subscribe(channel).await }
            });
            let outcomes = join_all(attempts).await;
            is_denied = false;
            let mut subscribed = Vec::new();
            for (shard, outcome) in attempted.into_iter().zip(outcomes) {
                match outcome {
                    Ok(()) => {
                        pending_confirmations += 1;
                        subscribed.push(shard);
                    }
                    // The other channels deliver meanwhile.
                    Err(error) if connection.reconnects() => {
                        tracing::debug!(%error, shard, "pub/sub subscription of a shard failed; retrying");
                        is_denied |= matches!(Error::from(error), Error::Denied(_));
                        unsubscribed.push(shard);
                    }
                    Err(error) => return Err(error.into()),
                }
            }
            if is_denied || unsubscribed.is_empty() {
                on_denial(is_denied);
            }
            // After an interruption meanwhile, all channels are subscribed again.
            if !subscribed.is_empty() && interruptions_seen.load(Ordering::Relaxed) == interruptions_before {
                on_message(PubSubMessage::Gap { shards: subscribed });
            }
        }
        let kind = tokio::select! {
            kind = control.recv() => kind,
            () = tokio::time::sleep(COALESCE_DELAY), if is_resubscribed => {
                is_resubscribed = false;
                let shards = (0..channels.len()).filter(|shard| !unsubscribed.contains(shard)).collect();
                on_message(PubSubMessage::Gap { shards });
                continue;
            }
            () = tokio::time::sleep(if is_denied { DENIED_DELAY } else { RETRY_DELAY }), if !unsubscribed.is_empty() => continue,
        };
        match kind {
            // Each subscription is confirmed. Further confirmations mean that the client of a Cluster resubscribed.
            Some(PushKind::SSubscribe) if pending_confirmations > 0 => pending_confirmations -= 1,
            Some(PushKind::SSubscribe) => {
                is_resubscribed = true;
                on_message(PubSubMessage::Interrupted);
            }
            // The client of a Cluster reconnects by itself but may miss channels. A slot that migrates to another node
            // takes its channel with it.
            Some(PushKind::Disconnection | PushKind::SUnsubscribe) if connection.reconnects() => {
                (unsubscribed, pending_confirmations) = ((0..channels.len()).collect(), 0);
            }
            Some(PushKind::Disconnection | PushKind::SUnsubscribe) | None => return Ok(()),
            Some(_) => {}
        }
    }
}

fn parse_push(push: PushInfo, channels: &[String]) -> Option<PubSubMessage> {
    let mut data = push.data.into_iter();
    let channel = bytes(data.next()?).ok()?;
    let shard = channels.iter().position(|name| name.as_bytes() == channel)?;
    Some(PubSubMessage::Message { shard, payload: bytes(data.next()?).ok()? })
}
