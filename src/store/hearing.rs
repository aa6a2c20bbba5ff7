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
use super::error::Result;
use super::reply::bytes;
use super::shard::Store;

/// What comes of a connection.
#[derive(Debug)]
pub(super) enum Heard {
    /// Something may have been said up to now that was not heard.
    Missed,
    /// A message.
    Said {
        /// In which shard.
        shard: usize,
        /// What.
        message: Vec<u8>,
    },
}

const RETRY: Duration = Duration::from_millis(200);
/// Subscriptions that come less far apart are told as one.
const TOGETHER: Duration = Duration::from_millis(20);

/// Hears `channels`, one of each shard, until it is dropped, connecting anew whenever the connection breaks. `take` is
/// called where the connection is read, so that nothing piles up: it must not take long. (A Cluster's client has a queue
/// of its own in between, which has no bound.)
pub(super) async fn hear<T>(store: &Store, channels: Vec<String>, take: T)
where
    T: Fn(Heard) + Clone + Send + Sync + 'static,
{
    loop {
        if let Err(error) = hear_once(store, &channels, take.clone()).await {
            tracing::debug!(%error, "what scripts publish is not heard");
        }
        tokio::time::sleep(RETRY).await;
    }
}

/// Ends when the connection has to be made anew.
async fn hear_once<T>(store: &Store, channels: &[String], take: T) -> Result<()>
where
    T: Fn(Heard) + Clone + Send + Sync + 'static,
{
    let (others, mut about_the_connection) = mpsc::unbounded_channel();
    let (names, said) = (channels.to_vec(), take.clone());
    let pushed = move |push: PushInfo| -> std::result::Result<(), Infallible> {
        match push.kind {
            PushKind::SMessage => {
                if let Some(heard) = read(push, &names) {
                    said(heard);
                }
            }
            kind => drop(others.send(kind)),
        }
        Ok(())
    };
    let connection = Connection::open(store.client(), pushed).await?;
    let (mut missing, mut owed): (Vec<&String>, _) = (channels.iter().collect(), 0);
    let mut by_itself = false;
    loop {
        if !missing.is_empty() {
            let outcomes = join_all(missing.iter().map(|channel| connection.subscribe(channel))).await;
            let tried = std::mem::take(&mut missing);
            for (channel, outcome) in tried.iter().zip(outcomes) {
                match (outcome, &connection) {
                    (Ok(()), _) => owed += 1,
                    (Err(error), Connection::Single(_)) => return Err(error),
                    // The others are heard meanwhile.
                    (Err(error), Connection::Cluster(_)) => {
                        tracing::debug!(%error, channel, "a shard is not heard");
                        missing.push(channel);
                    }
                }
            }
            if missing.len() < tried.len() {
                take(Heard::Missed);
            }
        }
        let kind = tokio::select! {
            kind = about_the_connection.recv() => kind,
            () = tokio::time::sleep(TOGETHER), if by_itself => {
                by_itself = false;
                take(Heard::Missed);
                continue;
            }
            () = tokio::time::sleep(RETRY), if !missing.is_empty() => continue,
        };
        match (kind, &connection) {
            // Each subscription is confirmed. Others come where a Cluster's client has subscribed by itself.
            (Some(PushKind::SSubscribe), _) if owed > 0 => owed -= 1,
            (Some(PushKind::SSubscribe), _) => by_itself = true,
            // A Cluster's client connects again by itself, but does not see to it that all is heard again. A slot that
            // has moved to another node takes its channel with it.
            (Some(PushKind::Disconnection | PushKind::SUnsubscribe), Connection::Cluster(_)) => {
                (missing, owed) = (channels.iter().collect(), 0);
            }
            (Some(PushKind::Disconnection) | None, _) => return Ok(()),
            (Some(_), _) => {}
        }
    }
}

/// A connection for hearing; dropped, it ends all subscriptions.
enum Connection {
    Single(MultiplexedConnection),
    Cluster(ClusterConnection),
}

impl Connection {
    async fn open(client: &Client, pushed: impl AsyncPushSender) -> Result<Self> {
        if client.is_cluster() {
            let builder = client.cluster_builder()?.use_protocol(ProtocolVersion::RESP3).push_sender(pushed);
            return Ok(Connection::Cluster(builder.build()?.get_async_connection().await?));
        }
        let info = client.target().open()?.get_connection_info().clone();
        let redis = info.redis_settings().clone().set_protocol(ProtocolVersion::RESP3);
        let client = deadpool_redis::redis::Client::open(info.set_redis_settings(redis))?;
        let config = AsyncConnectionConfig::new()
            .set_connection_timeout(Some(Duration::from_secs(2)))
            .set_response_timeout(Some(Duration::from_secs(3)))
            .set_push_sender(pushed);
        Ok(Connection::Single(client.get_multiplexed_async_connection_with_config(&config).await?))
    }

    async fn subscribe(&self, channel: &str) -> Result<()> {
        match self {
            Connection::Single(connection) => {
                cmd("SSUBSCRIBE").arg(channel).exec_async(&mut connection.clone()).await?;
            }
            Connection::Cluster(connection) => connection.clone().ssubscribe(channel).await?,
        }
        Ok(())
    }
}

fn read(push: PushInfo, channels: &[String]) -> Option<Heard> {
    let mut data = push.data.into_iter();
    let channel = bytes(data.next()?).ok()?;
    let shard = channels.iter().position(|name| name.as_bytes() == channel)?;
    Some(Heard::Said { shard, message: bytes(data.next()?).ok()? })
}
