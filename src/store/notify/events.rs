//! What becomes of tasks, as scripts report it while somebody listens (`ops/listen.rs`).
//!
//! It is a report and no record: what is published while a connection is broken is lost, and then that is told.

use deadpool_redis::redis::Value;

use crate::domain::id::TaskId;
use crate::domain::queue::QueueName;
use crate::domain::state::State;
use crate::domain::time::TimestampMs;
use crate::store::error::{Error, Result};
use crate::store::redis::pubsub;
use crate::store::redis::pubsub::PubSubMessage;
use crate::store::redis::reply::{decode_msgpack, read_list};
use crate::store::shard::Store;

/// A task has gone from one state to another.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct TaskEvent {
    /// Which task.
    pub id: TaskId,
    /// Its queue.
    pub queue: QueueName,
    /// Where it was; `None`: it is new.
    pub from: Option<State>,
    /// Where it is; `None`: it is forgotten.
    pub to: Option<State>,
    /// When.
    pub at: TimestampMs,
}

/// What is heard of them.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum EventMessage {
    /// These happened, in this order.
    Events(Vec<TaskEvent>),
    /// Some may have happened up to now that were not heard.
    Gap,
}

/// Hears until it is dropped, connecting anew whenever the connection breaks. Each time that shards begin to be heard,
/// that is told: [`News::Missed`].
pub async fn subscribe(store: &Store, on_event: impl Fn(EventMessage) + Clone + Send + Sync + 'static) {
    let channels = store.shards().iter().map(|shard| shard.keys.events_channel()).collect();
    let on_message = move |heard| {
        on_event(match heard {
            PubSubMessage::Gap => EventMessage::Gap,
            PubSubMessage::Message { payload: message, .. } => decode_msgpack(Value::BulkString(message))
                .and_then(parse_events)
                .map_or_else(gap_on_error, EventMessage::Events),
        });
    };
    pubsub::subscribe(store, channels, on_message).await;
}

/// A later release may say what this one cannot read.
fn gap_on_error(error: Error) -> EventMessage {
    tracing::debug!(%error, "a report of changes cannot be read");
    EventMessage::Gap
}

/// Reads `{ms, {id, queue, from, to}, …}`; what a later release adds to a change is passed over.
pub(in crate::store) fn parse_events(message: Value) -> Result<Vec<TaskEvent>> {
    let mut message = read_list(message)?;
    let at = TimestampMs(message.int()?);
    message.map(|change| parse_event(change, at)).collect()
}

fn parse_event(value: Value, at: TimestampMs) -> Result<TaskEvent> {
    let mut event = read_list(value)?;
    let id = event.id()?;
    let name = event.text()?;
    let queue = QueueName::parse(&name).ok_or_else(|| Error::Unexpected(format!("no queue: {name:.40}")))?;
    let mut optional_state = |nothing: &str| -> Result<Option<State>> {
        let text = event.text()?;
        match State::parse(&text) {
            None if text == nothing => Ok(None),
            None => Err(Error::Unexpected(format!("no state: {text:.40}"))),
            state => Ok(state),
        }
    };
    Ok(TaskEvent { id, queue, from: optional_state("")?, to: optional_state("deleted")?, at })
}

#[cfg(test)]
mod tests {
    use crate::store::notify::events::*;

    fn parsed(from: &str, to: &str) -> Result<Vec<TaskEvent>> {
        let text = |text: &str| Value::BulkString(text.into());
        let event = vec![text("0123456789abcdef"), text("mail"), text(from), text(to), text("more")];
        parse_events(Value::Array(vec![Value::Int(7), Value::Array(event)]))
    }

    #[test]
    fn published_events_are_parsed_and_unknown_states_become_a_gap() {
        let [change] = parsed("ready", "leased").unwrap().try_into().unwrap();
        assert_eq!((change.from, change.to, change.at), (Some(State::Ready), Some(State::Leased), TimestampMs(7)));
        assert_eq!(parsed("", "ready").unwrap()[0].from, None);
        assert_eq!(parsed("dead", "deleted").unwrap()[0].to, None);
        for (from, to) in [("deleted", "ready"), ("ready", ""), ("ready", "frozen")] {
            assert_eq!(gap_on_error(parsed(from, to).unwrap_err()), EventMessage::Gap);
        }
    }
}
