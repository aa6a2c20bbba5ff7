//! Hears one channel of each shard, on a connection of its own.
//!
//! What is said may be lost where a connection breaks; whoever hears is told so once the channels are heard again.

use std::convert::Infallible;
use std::time::Duration;

use deadpool_redis::redis::aio::{AsyncPushSender, MultiplexedConnection};
use deadpool_redis::redis::cluster_async::ClusterConnection;
use deadpool_redis::redis::{AsyncConnectionConfig, ProtocolVersion, PushInfo, PushKind, cmd};
use futures_util::future::join_all;
use tokio::sync::mpsc;

use super::client::Client;
use super::reply::bytes;
use crate::store::error::Result;
use crate::store::shard::Store;

/// What comes of a connection.
#[derive(Debug)]
pub(in crate::store) enum PubSubMessage {
    /// Something may have been said up to now that was not heard.
    Gap,
    /// A message.
    Message {
        /// In which shard.
        shard: usize,
        /// What.
        payload: Vec<u8>,
    },
}

const RETRY_DELAY: Duration = Duration::from_millis(200);
/// Subscriptions that come less far apart are told as one.
const COALESCE_DELAY: Duration = Duration::from_millis(20);

/// Hears `channels`, one of each shard, until it is dropped, connecting anew whenever the connection breaks. `take` is
/// called where the connection is read, so that nothing piles up: it must not take long. (A Cluster's client has a queue
/// of its own in between, which has no bound.)
pub(in crate::store) async fn subscribe<T>(store: &Store, channels: Vec<String>, on_message: T)
where
    T: Fn(PubSubMessage) + Clone + Send + Sync + 'static,
{
    loop {
        if let Err(error) = run_subscription(store, &channels, on_message.clone()).await {
            tracing::debug!(%error, "what scripts publish is not heard");
        }
        tokio::time::sleep(RETRY_DELAY).await;
    }
}

/// Ends when the connection has to be made anew.
async fn run_subscription<T>(store: &Store, channels: &[String], on_message: T) -> Result<()>
where
    T: Fn(PubSubMessage) + Clone + Send + Sync + 'static,
{
    let (control_sender, mut control) = mpsc::unbounded_channel();
    let (channel_names, deliver) = (channels.to_vec(), on_message.clone());
    let on_push = move |push: PushInfo| -> std::result::Result<(), Infallible> {
        match push.kind {
            PushKind::SMessage => {
                if let Some(message) = parse_push(push, &channel_names) {
                    deliver(message);
                }
            }
            kind => drop(control_sender.send(kind)),
        }
        Ok(())
    };
    let connection = PubSubConnection::open(store.client(), on_push).await?;
    let (mut unsubscribed, mut pending_confirmations): (Vec<&String>, _) = (channels.iter().collect(), 0);
    let mut resubscribed = false;
    loop {
        if !unsubscribed.is_empty() {
            let outcomes = join_all(unsubscribed.iter().map(|channel| connection.subscribe(channel))).await;
            let attempted = std::mem::take(&mut unsubscribed);
            for (channel, outcome) in attempted.iter().zip(outcomes) {
                match (outcome, &connection) {
                    (Ok(()), _) => pending_confirmations += 1,
                    (Err(error), PubSubConnection::Single(_)) => return Err(error),
                    // The others are heard meanwhile.
                    (Err(error), PubSubConnection::Cluster(_)) => {
                        tracing::debug!(%error, channel, "a shard is not heard");
                        unsubscribed.push(channel);
                    }
                }
            }
            if unsubscribed.len() < attempted.len() {
                on_message(PubSubMessage::Gap);
            }
        }
        let kind = tokio::select! {
            kind = control.recv() => kind,
            () = tokio::time::sleep(COALESCE_DELAY), if resubscribed => {
                resubscribed = false;
                on_message(PubSubMessage::Gap);
                continue;
            }
            () = tokio::time::sleep(RETRY_DELAY), if !unsubscribed.is_empty() => continue,
        };
        match (kind, &connection) {
            // Each subscription is confirmed. Others come where a Cluster's client has subscribed by itself.
            (Some(PushKind::SSubscribe), _) if pending_confirmations > 0 => pending_confirmations -= 1,
            (Some(PushKind::SSubscribe), _) => resubscribed = true,
            // A Cluster's client connects again by itself, but does not see to it that all is heard again. A slot that
            // has moved to another node takes its channel with it.
            (Some(PushKind::Disconnection | PushKind::SUnsubscribe), PubSubConnection::Cluster(_)) => {
                (unsubscribed, pending_confirmations) = (channels.iter().collect(), 0);
            }
            (Some(PushKind::Disconnection) | None, _) => return Ok(()),
            (Some(_), _) => {}
        }
    }
}

/// A connection for hearing; dropped, it ends all subscriptions.
enum PubSubConnection {
    Single(MultiplexedConnection),
    Cluster(ClusterConnection),
}

impl PubSubConnection {
    async fn open(client: &Client, push_sender: impl AsyncPushSender) -> Result<Self> {
        if client.is_cluster() {
            let builder = client.cluster_builder()?.use_protocol(ProtocolVersion::RESP3).push_sender(push_sender);
            return Ok(PubSubConnection::Cluster(builder.build()?.get_async_connection().await?));
        }
        let info = client.config().open_client()?.get_connection_info().clone();
        let redis = info.redis_settings().clone().set_protocol(ProtocolVersion::RESP3);
        let client = deadpool_redis::redis::Client::open(info.set_redis_settings(redis))?;
        let config = AsyncConnectionConfig::new()
            .set_connection_timeout(Some(Duration::from_secs(2)))
            .set_response_timeout(Some(Duration::from_secs(3)))
            .set_push_sender(push_sender);
        Ok(PubSubConnection::Single(client.get_multiplexed_async_connection_with_config(&config).await?))
    }

    async fn subscribe(&self, channel: &str) -> Result<()> {
        match self {
            PubSubConnection::Single(connection) => {
                cmd("SSUBSCRIBE").arg(channel).exec_async(&mut connection.clone()).await?;
            }
            PubSubConnection::Cluster(connection) => connection.clone().ssubscribe(channel).await?,
        }
        Ok(())
    }
}

fn parse_push(push: PushInfo, channels: &[String]) -> Option<PubSubMessage> {
    let mut data = push.data.into_iter();
    let channel = bytes(data.next()?).ok()?;
    let shard = channels.iter().position(|name| name.as_bytes() == channel)?;
    Some(PubSubMessage::Message { shard, payload: bytes(data.next()?).ok()? })
}
