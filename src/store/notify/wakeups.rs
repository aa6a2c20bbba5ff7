//! Hints that scripts publish.
//!
//! Signals may be lost, doubled or late: whoever hears them looks into Redis, and looks from time to time anyway.

use tokio::sync::mpsc;

use crate::domain::id::TaskId;
use crate::domain::queue::QueueName;
use crate::store::redis::pubsub;
use crate::store::redis::pubsub::PubSubMessage;
use crate::store::shard::Store;

/// What a script said.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Wakeup {
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
    Gap,
}

/// Hears until it is dropped, connecting anew whenever the connection breaks.
pub async fn subscribe(store: Store, sender: mpsc::UnboundedSender<Wakeup>) {
    let channels = store.shards().iter().map(|shard| shard.keys.wakeups_channel()).collect();
    let on_message = move |message| {
        let wakeup = match message {
            PubSubMessage::Gap => Some(Wakeup::Gap),
            PubSubMessage::Message { shard, payload: message } => parse(shard, &message),
        };
        // Nobody takes them any more: this hearing is about to be dropped.
        wakeup.map(|signal| sender.send(signal));
    };
    pubsub::subscribe(&store, channels, on_message).await;
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
    use crate::store::notify::wakeups::*;

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
