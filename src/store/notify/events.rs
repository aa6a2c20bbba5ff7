//! Task events: scripts publish every transition while events are enabled (`ops/enable_events.rs`).
//!
//! Events are not stored. After a broken connection, [`EventMessage::Gap`] says that events may have been lost.

use deadpool_redis::redis::Value;

use crate::domain::id::TaskId;
use crate::domain::queue::QueueName;
use crate::domain::state::State;
use crate::domain::time::TimestampMs;
use crate::store::error::{Error, Result};
use crate::store::redis::pubsub::PubSubMessage;
use crate::store::redis::reply::{decode_msgpack, read_list};
use crate::store::shard::{Shard, Store};

/// A transition of a task.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct TaskEvent {
    /// The task.
    pub id: TaskId,
    /// Its queue.
    pub queue: QueueName,
    /// The state before. `None`: the task is new.
    pub from: Option<State>,
    /// The state after. `None`: the task was deleted.
    pub to: Option<State>,
    /// The time of the transition.
    pub at: TimestampMs,
}

/// A message of the subscription.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum EventMessage {
    /// Events in the order in which they happened.
    Events(Vec<TaskEvent>),
    /// Events may have been lost before this point.
    Gap,
}

/// Subscribes to the events of all shards until the future is dropped. Reconnects after every break, and reports an
/// [`EventMessage::Gap`] after each new subscription.
pub async fn subscribe(store: &Store, on_event: impl Fn(EventMessage) + Clone + Send + Sync + 'static) {
    let on_message = move |message| {
        on_event(match message {
            // The gap follows.
            PubSubMessage::Interrupted => return,
            PubSubMessage::Gap { .. } => EventMessage::Gap,
            PubSubMessage::Message { payload, .. } => decode_msgpack(Value::BulkString(payload))
                .and_then(parse_events)
                .map_or_else(gap_on_error, EventMessage::Events),
        });
    };
    super::subscribe(store, Shard::events_channel, on_message).await;
}

/// A later release may publish events that this one cannot parse.
fn gap_on_error(error: Error) -> EventMessage {
    tracing::debug!(%error, "parsing a task event failed");
    EventMessage::Gap
}

/// Parses `{ms, {id, queue, from, to}, …}`. Ignores further elements, which a later release may add.
pub(in crate::store) fn parse_events(message: Value) -> Result<Vec<TaskEvent>> {
    let mut message = read_list(message)?;
    let at = TimestampMs(message.int()?);
    message.map(|event| parse_event(event, at)).collect()
}

fn parse_event(value: Value, at: TimestampMs) -> Result<TaskEvent> {
    let mut event = read_list(value)?;
    let id = event.id()?;
    let name = event.text()?;
    let queue = QueueName::parse(&name).ok_or_else(|| Error::Unexpected(format!("invalid queue name: {name:.40}")))?;
    let mut optional_state = |none: &str| -> Result<Option<State>> {
        let text = event.text()?;
        match State::parse(&text) {
            None if text == none => Ok(None),
            None => Err(Error::Unexpected(format!("invalid state: {text:.40}"))),
            state => Ok(state),
        }
    };
    Ok(TaskEvent { id, queue, from: optional_state("")?, to: optional_state("deleted")?, at })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parsed(from: &str, to: &str) -> Result<Vec<TaskEvent>> {
        let text = |text: &str| Value::BulkString(text.into());
        let event = vec![text("0123456789abcdef"), text("mail"), text(from), text(to), text("more")];
        parse_events(Value::Array(vec![Value::Int(7), Value::Array(event)]))
    }

    #[test]
    fn published_events_are_parsed_and_unknown_states_become_a_gap() {
        let [event] = parsed("ready", "leased").unwrap().try_into().unwrap();
        assert_eq!((event.from, event.to, event.at), (Some(State::Ready), Some(State::Leased), TimestampMs(7)));
        assert_eq!(parsed("", "ready").unwrap()[0].from, None);
        assert_eq!(parsed("dead", "deleted").unwrap()[0].to, None);
        for (from, to) in [("deleted", "ready"), ("ready", ""), ("ready", "frozen")] {
            assert_eq!(gap_on_error(parsed(from, to).unwrap_err()), EventMessage::Gap);
        }
    }
}
