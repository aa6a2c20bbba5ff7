//! Hints that scripts publish.
//!
//! Signals may be lost, doubled or late: whoever hears them looks into Redis, and looks from time to time anyway.

use tokio::sync::mpsc;

use super::hearing::{self, Heard};
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

/// Hears until it is dropped, connecting anew whenever the connection breaks.
pub async fn hear(store: Store, out: mpsc::UnboundedSender<Signal>) {
    let channels = store.shards().iter().map(|shard| shard.keys.signals()).collect();
    let take = move |heard| {
        let signal = match heard {
            Heard::Missed => Some(Signal::Missed),
            Heard::Said { shard, message } => parse(shard, &message),
        };
        // Nobody takes them any more: this hearing is about to be dropped.
        signal.map(|signal| out.send(signal));
    };
    hearing::hear(&store, channels, take).await;
}

fn parse(shard: usize, message: &[u8]) -> Option<Signal> {
    if let Some(id) = message.strip_prefix(b"ended ") {
        return Some(Signal::Ended(TaskId::from_bytes(id)?));
    }
    let text = std::str::from_utf8(message).ok()?;
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
        parse(3, message)
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
