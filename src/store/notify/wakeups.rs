//! Wake-ups: short messages with which a script says that a shard has new work.
//!
//! A wake-up may be lost, duplicated or late. Its receiver reads the state from Redis, and also polls periodically.

use tokio::sync::mpsc;

use crate::domain::id::TaskId;
use crate::domain::queue::QueueName;
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
    }

    #[test]
    fn unknown_messages_are_ignored() {
        for message in [&b"woken mail"[..], b"ready mail", b"ended 1", b"", b"\xff"] {
            assert_eq!(parsed(message), None);
        }
    }
}
