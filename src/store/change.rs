//! What becomes of tasks, as scripts report it while somebody listens (`ops/listen.rs`).
//!
//! It is a report and no record: what is published while a connection is broken is lost, and then that is told.

use deadpool_redis::redis::Value;

use super::error::{Error, Result};
use super::hearing::{self, Heard};
use super::reply::{items, unpacked};
use super::shard::Store;
use crate::domain::id::TaskId;
use crate::domain::queue::QueueName;
use crate::domain::state::State;
use crate::domain::time::Millis;

/// A task has gone from one state to another.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Change {
    /// Which task.
    pub id: TaskId,
    /// Its queue.
    pub queue: QueueName,
    /// Where it was; `None`: it is new.
    pub from: Option<State>,
    /// Where it is; `None`: it is forgotten.
    pub to: Option<State>,
    /// When.
    pub at: Millis,
}

/// What is heard of them.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum News {
    /// These happened, in this order.
    Changes(Vec<Change>),
    /// Some may have happened up to now that were not heard.
    Missed,
}

/// Hears until it is dropped, connecting anew whenever the connection breaks. Each time that shards begin to be heard,
/// that is told: [`News::Missed`].
pub async fn hear(store: &Store, take: impl Fn(News) + Clone + Send + Sync + 'static) {
    let channels = store.shards().iter().map(|shard| shard.keys.events()).collect();
    let take = move |heard| {
        take(match heard {
            Heard::Missed => News::Missed,
            Heard::Said { message, .. } => {
                unpacked(Value::BulkString(message)).and_then(read).map_or_else(unread, News::Changes)
            }
        });
    };
    hearing::hear(store, channels, take).await;
}

/// A later release may say what this one cannot read.
fn unread(error: Error) -> News {
    tracing::debug!(%error, "a report of changes cannot be read");
    News::Missed
}

/// Reads `{ms, {id, queue, from, to}, …}`; what a later release adds to a change is passed over.
pub(super) fn read(message: Value) -> Result<Vec<Change>> {
    let mut message = items(message)?;
    let at = Millis(message.int()?);
    message.map(|change| one(change, at)).collect()
}

fn one(change: Value, at: Millis) -> Result<Change> {
    let mut change = items(change)?;
    let id = change.id()?;
    let name = change.text()?;
    let queue = QueueName::parse(&name).ok_or_else(|| Error::Unexpected(format!("no queue: {name:.40}")))?;
    let mut state_or = |nothing: &str| -> Result<Option<State>> {
        let text = change.text()?;
        match State::parse(&text) {
            None if text == nothing => Ok(None),
            None => Err(Error::Unexpected(format!("no state: {text:.40}"))),
            state => Ok(state),
        }
    };
    Ok(Change { id, queue, from: state_or("")?, to: state_or("removed")?, at })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn reported(from: &str, to: &str) -> Result<Vec<Change>> {
        let text = |text: &str| Value::BulkString(text.into());
        let change = vec![text("0123456789abcdef"), text("mail"), text(from), text(to), text("more")];
        read(Value::Array(vec![Value::Int(7), Value::Array(change)]))
    }

    #[test]
    fn reports_of_the_scripts_are_read_and_states_that_are_not_known_are_told_as_missed() {
        let [change] = reported("ready", "leased").unwrap().try_into().unwrap();
        assert_eq!((change.from, change.to, change.at), (Some(State::Ready), Some(State::Leased), Millis(7)));
        assert_eq!(reported("", "ready").unwrap()[0].from, None);
        assert_eq!(reported("dead", "removed").unwrap()[0].to, None);
        for (from, to) in [("removed", "ready"), ("ready", ""), ("ready", "frozen")] {
            assert_eq!(unread(reported(from, to).unwrap_err()), News::Missed);
        }
    }
}
