//! What scripts publish, heard on one connection of its own per server.
//!
//! Signals may be lost, doubled or late: whoever hears them looks into Redis, and looks from time to time anyway.

use std::time::Duration;

use deadpool_redis::redis::{AsyncConnectionConfig, ProtocolVersion, PushInfo, PushKind, Value, cmd};
use tokio::sync::mpsc;

use super::error::Result;
use super::reply::bytes;
use super::shard::Store;
use crate::domain::id::TaskId;
use crate::domain::queue::QueueName;

/// What a script said.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Signal {
    /// A queue that had nothing to claim has, or has something of a higher priority.
    Ready {
        /// Where.
        shard: usize,
        /// Of this priority.
        priority: u8,
        /// Which.
        queue: QueueName,
    },
    /// The first time in the shard's `due` is earlier than it was.
    Due {
        /// Where.
        shard: usize,
    },
    /// A watched task has ended, or is gone.
    Ended(TaskId),
    /// Signals may have been missed up to now.
    Missed,
}

const RETRY: Duration = Duration::from_millis(200);

/// Hears until it is dropped, connecting anew whenever the connection breaks.
pub async fn hear(store: Store, out: mpsc::UnboundedSender<Signal>) {
    let channels: Vec<String> = store.shards().iter().map(|shard| shard.keys.signals()).collect();
    loop {
        if let Err(error) = hear_once(&store, &channels, &out).await {
            tracing::debug!(%error, "signals of Redis are not heard");
        }
        if out.is_closed() {
            return;
        }
        tokio::time::sleep(RETRY).await;
    }
}

/// Ends when the connection does.
async fn hear_once(store: &Store, channels: &[String], out: &mpsc::UnboundedSender<Signal>) -> Result<()> {
    let (pushes, mut heard) = mpsc::unbounded_channel();
    let client = store.client();
    // The connection is kept until the end of this function: dropping it would end the subscription.
    let _kept: Box<dyn Send> = if client.is_cluster() {
        let builder = client.cluster_builder()?.use_protocol(ProtocolVersion::RESP3).push_sender(pushes);
        let mut connection = builder.build()?.get_async_connection().await?;
        for channel in channels {
            connection.ssubscribe(channel).await?;
        }
        Box::new(connection)
    } else {
        let info = client.target().open()?.get_connection_info().clone();
        let redis = info.redis_settings().clone().set_protocol(ProtocolVersion::RESP3);
        let client = deadpool_redis::redis::Client::open(info.set_redis_settings(redis))?;
        let config = AsyncConnectionConfig::new()
            .set_connection_timeout(Some(Duration::from_secs(2)))
            .set_response_timeout(Some(Duration::from_secs(3)))
            .set_push_sender(pushes);
        let mut connection = client.get_multiplexed_async_connection_with_config(&config).await?;
        for channel in channels {
            cmd("SSUBSCRIBE").arg(channel).exec_async(&mut connection).await?;
        }
        Box::new(connection)
    };
    // What happened before the subscription stood was not heard.
    let _ = out.send(Signal::Missed);
    while let Some(push) = heard.recv().await {
        match push.kind {
            // A Cluster's client connects and subscribes again by itself; a single one does not.
            PushKind::Disconnection if !client.is_cluster() => return Ok(()),
            PushKind::Disconnection => drop(out.send(Signal::Missed)),
            PushKind::SMessage => {
                if let Some(signal) = read(push, channels)
                    && out.send(signal).is_err()
                {
                    return Ok(());
                }
            }
            _ => {}
        }
    }
    Ok(())
}

fn read(push: PushInfo, channels: &[String]) -> Option<Signal> {
    let mut data = push.data.into_iter();
    let channel = bytes(data.next()?).ok()?;
    let shard = channels.iter().position(|name| name.as_bytes() == channel)?;
    parse(shard, data.next()?)
}

fn parse(shard: usize, message: Value) -> Option<Signal> {
    let message = bytes(message).ok()?;
    if let Some(id) = message.strip_prefix(b"ended ") {
        return Some(Signal::Ended(TaskId::from_bytes(id)?));
    }
    let text = std::str::from_utf8(&message).ok()?;
    let mut words = text.split(' ');
    match words.next()? {
        "ready" => {
            let priority = words.next()?.parse().ok()?;
            Some(Signal::Ready { shard, priority, queue: QueueName::parse(words.next()?)? })
        }
        "due" => Some(Signal::Due { shard }),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn heard(message: &[u8]) -> Option<Signal> {
        parse(3, Value::BulkString(message.to_vec()))
    }

    #[test]
    fn messages_of_the_scripts_are_read() {
        let queue = QueueName::parse("mail").unwrap();
        assert_eq!(heard(b"ready 7 mail"), Some(Signal::Ready { shard: 3, priority: 7, queue }));
        assert_eq!(heard(b"due 1700000000000"), Some(Signal::Due { shard: 3 }));
        assert!(matches!(heard(b"ended 0123456789abcdef"), Some(Signal::Ended(_))));
    }

    #[test]
    fn what_a_later_release_publishes_is_passed_over() {
        for message in [&b"woken mail"[..], b"ready mail", b"ended 1", b"", b"\xff"] {
            assert_eq!(heard(message), None);
        }
    }
}
