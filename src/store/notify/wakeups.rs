//! Wake-ups: short messages with which a script says that a shard has new work.
//!
//! A wake-up may be lost, duplicated or late. Its receiver reads the state from Redis, and also polls periodically.

use deadpool_redis::redis::cmd;
use tokio::sync::mpsc;

use crate::domain::id::TaskId;
use crate::domain::queue::QueueName;
use crate::store::error::Result;
use crate::store::redis::pubsub::PubSubMessage;
use crate::store::shard::{Shard, Store};

/// A wake-up.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Wakeup {
    /// A queue has its first claimable task, or one of a higher priority than before.
    Ready {
        /// The index of the shard.
        shard: usize,
        /// The priority of the task.
        priority: u8,
        /// The queue.
        queue: QueueName,
    },
    /// The first time in the shard's `due` index became earlier.
    Due {
        /// The index of the shard.
        shard: usize,
    },
    /// A task whose completion a client awaits has ended or was deleted.
    Ended(TaskId),
    /// A server, this one included, has these waiters.
    Waiting {
        /// Identifies the server.
        server: u64,
        /// The number of waiters by queue.
        waiters: Vec<(QueueName, usize)>,
    },
    /// Wake-ups of all shards may be lost from now on, until the next gap.
    Interrupted,
    /// The wake-ups of these shards arrive from now on. Earlier ones may have been lost.
    Gap {
        /// Indexes of the shards.
        shards: Vec<usize>,
    },
}

/// Subscribes to the wake-ups of all shards until the future is dropped. Reconnects after every break.
pub async fn subscribe(store: Store, sender: mpsc::UnboundedSender<Wakeup>) {
    let on_message = move |message| {
        let wakeup = match message {
            PubSubMessage::Interrupted => Some(Wakeup::Interrupted),
            PubSubMessage::Gap { shards } => Some(Wakeup::Gap { shards }),
            PubSubMessage::Message { shard, payload } => parse(shard, &payload),
        };
        // An error means that the receiver was dropped: so is this future soon.
        wakeup.map(|wakeup| sender.send(wakeup));
    };
    super::subscribe(&store, Shard::wakeups_channel, on_message).await;
}

/// Announces to all servers how many waiters this one has. A user of Redis without channels announces nothing, which
/// `/readyz` shows.
pub async fn announce_waiters(shard: &Shard, server: u64, waiters: &[(QueueName, usize)]) -> Result<()> {
    let mut message = format!("waiting {server:x}");
    for (queue, count) in waiters {
        message.push_str(&format!(" {} {queue}", u16::try_from(*count).unwrap_or(u16::MAX)));
    }
    let channel = shard.wakeups_channel();
    let publish = cmd("SPUBLISH").arg(&channel).arg(message).to_owned();
    shard.client().denial(channel.as_bytes(), &publish).await.map(drop)
}

fn parse(shard: usize, message: &[u8]) -> Option<Wakeup> {
    if let Some(id) = message.strip_prefix(b"ended ") {
        return Some(Wakeup::Ended(TaskId::from_bytes(id)?));
    }
    let text = std::str::from_utf8(message).ok()?;
    let mut words = text.split(' ');
    match words.next()? {
        "ready" => {
            let priority = words.next()?.parse().ok()?;
            Some(Wakeup::Ready { shard, priority, queue: QueueName::parse(words.next()?)? })
        }
        "due" => Some(Wakeup::Due { shard }),
        "waiting" => {
            let server = u64::from_str_radix(words.next()?, 16).ok()?;
            let mut waiters = Vec::new();
            while let Some(count) = words.next() {
                // A sum of these numbers does not overflow.
                let count: u16 = count.parse().ok()?;
                waiters.push((QueueName::parse(words.next()?)?, count.into()));
            }
            Some(Wakeup::Waiting { server, waiters })
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parsed(message: &[u8]) -> Option<Wakeup> {
        parse(3, message)
    }

    #[test]
    fn published_wakeups_are_parsed() {
        let queue = QueueName::parse("mail").unwrap();
        assert_eq!(parsed(b"ready 7 mail"), Some(Wakeup::Ready { shard: 3, priority: 7, queue }));
        assert_eq!(parsed(b"due 1700000000000"), Some(Wakeup::Due { shard: 3 }));
        assert!(matches!(parsed(b"ended 0123456789abcdef"), Some(Wakeup::Ended(_))));
        let queue = |name| QueueName::parse(name).unwrap();
        let waiters = vec![(queue("mail"), 3), (queue("q"), 1)];
        assert_eq!(parsed(b"waiting ff 3 mail 1 q"), Some(Wakeup::Waiting { server: 255, waiters }));
        assert_eq!(parsed(b"waiting ff"), Some(Wakeup::Waiting { server: 255, waiters: Vec::new() }));
    }

    #[test]
    fn unknown_messages_are_ignored() {
        for message in
            [&b"woken mail"[..], b"ready mail", b"ended 1", b"waiting ff 3", b"waiting ff -1 q", b"", b"\xff"]
        {
            assert_eq!(parsed(message), None);
        }
    }
}
