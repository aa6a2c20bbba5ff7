//! `GET /events`: task events as a stream of server-sent events.

use std::convert::Infallible;
use std::fmt::Write as _;
use std::time::Duration;

use axum::body::Body;
use axum::extract::{Extension, State as Shared};
use axum::http::{HeaderMap, HeaderName, HeaderValue, Method, Uri, header};
use axum::response::Response;
use futures_util::StreamExt as _;
use futures_util::stream;
use serde::Serialize;

use super::extract::{Query, single_header};
use super::json::as_text::AsText;
use super::problem::{Code, Problem};
use super::state::Api;
use crate::dispatch::{BufferedEvent, Cursor, EventData};
use crate::domain::id::TaskId;
use crate::domain::limits;
use crate::domain::queue::QueueName;
use crate::domain::state::State;
use crate::domain::time::TimestampMs;
use crate::http_server::LongPoll;
use crate::store::notify::events::TaskEvent;

static LAST_EVENT_ID: HeaderName = HeaderName::from_static("last-event-id");

/// Interval of keep-alives in a stream without events, so that no proxy closes it as idle.
const KEEP_ALIVE_INTERVAL: Duration = Duration::from_secs(15);
/// Reconnect delay sent to clients, in ms. It is shorter than the time for which the server buffers events.
const RECONNECT_DELAY_MS: u32 = 2000;

#[derive(Serialize)]
struct TaskEventJson<'a> {
    id: AsText<TaskId>,
    queue: &'a str,
    from: Option<&'static str>,
    state: Option<&'static str>,
    at: AsText<TimestampMs>,
}

#[derive(Serialize)]
struct CursorJson<'a> {
    cursor: &'a str,
}

#[derive(Serialize)]
struct GapJson {
    count: Option<u64>,
}

pub(super) async fn subscribe(
    Shared(api): Shared<Api>,
    Extension(long_poll): Extension<LongPoll>,
    method: Method,
    uri: Uri,
    headers: HeaderMap,
) -> Result<Response, Problem> {
    let (query, names) = Query::parse_with_repeated(uri.query().unwrap_or_default(), "queue")?;
    query.deny_unknown()?;
    let queues = parse_queues(&names)?;
    if method == Method::HEAD {
        // The response to HEAD has no body.
        return Ok(event_stream_response(Body::from_stream(stream::empty::<Result<String, Infallible>>())));
    }
    let last_id = single_header(&headers, &LAST_EVENT_ID, "Last-Event-ID")?.filter(|id| !id.is_empty());
    // A malformed id is treated as the id of another server: unknown.
    let last_seen =
        last_id.map(|id| id.to_str().ok().and_then(decode_event_id).unwrap_or(Cursor { run_id: 0, number: 0 }));
    long_poll.begin();
    let subscription = api.dispatch.subscribe(queues, last_seen).await?;
    let mut preamble = format!("retry: {RECONNECT_DELAY_MS}\n");
    if !subscription.begins_with_gap() {
        // A client that loses the stream before the first event can resume from here.
        preamble.push_str(&encode_cursor(subscription.cursor()));
    }
    let events = stream::unfold(subscription, |mut subscription| async move {
        let events = subscription.next(KEEP_ALIVE_INTERVAL).await?;
        Some((encode_events(subscription.cursor(), &events), subscription))
    });
    let chunks = stream::iter([preamble]).chain(events).map(Ok::<_, Infallible>);
    Ok(event_stream_response(Body::from_stream(chunks)))
}

fn event_stream_response(body: Body) -> Response {
    let mut response = Response::new(body);
    for (name, value) in [
        (header::CONTENT_TYPE.as_str(), "text/event-stream"),
        (header::CACHE_CONTROL.as_str(), "no-store"),
        // Some proxies buffer a response unless this header is set.
        ("x-accel-buffering", "no"),
    ] {
        response.headers_mut().insert(name, HeaderValue::from_static(value));
    }
    response
}

fn parse_queues(names: &[String]) -> Result<Vec<QueueName>, Problem> {
    if names.len() > limits::MAX_CLAIM_QUEUES {
        let detail = format!("queue may occur at most {} times; omit it for all queues", limits::MAX_CLAIM_QUEUES);
        return Err(Problem::at("?queue", Code::TooLong, detail));
    }
    let queue = |name: &String| QueueName::parse(name).ok_or_else(|| Problem::invalid_queue("?queue"));
    names.iter().map(queue).collect()
}

fn encode_event_id(Cursor { run_id: run, number }: Cursor) -> String {
    format!("{run:016x}-{number}")
}

fn decode_event_id(text: &str) -> Option<Cursor> {
    let (run, number) = text.split_once('-')?;
    Some(Cursor { run_id: u64::from_str_radix(run, 16).ok()?, number: number.parse().ok()? })
}

/// Encodes the event `cursor`. It has data, because clients drop the id of an event without.
fn encode_cursor(cursor: Cursor) -> String {
    let id = encode_event_id(cursor);
    // The types of this file serialize without errors.
    let data = serde_json::to_string(&CursorJson { cursor: &id }).unwrap_or_default();
    format!("event: cursor\nid: {id}\ndata: {data}\n\n")
}

/// Encodes events, or the cursor if there are none.
fn encode_events(cursor: Cursor, events: &[BufferedEvent]) -> String {
    if events.is_empty() {
        return encode_cursor(cursor);
    }
    let mut text = String::new();
    for BufferedEvent { number, data: event } in events {
        let (name, data) = match event {
            EventData::Change(TaskEvent { id, queue, from, to, at }) => {
                let (from, state) = (from.map(State::as_str), to.map(State::as_str));
                let change = TaskEventJson { id: AsText(*id), queue: queue.as_str(), from, state, at: AsText(*at) };
                ("task", serde_json::to_string(&change))
            }
            EventData::Gap(count) => ("gap", serde_json::to_string(&GapJson { count: *count })),
        };
        let id = encode_event_id(Cursor { number: *number, ..cursor });
        let _ = write!(text, "event: {name}\nid: {id}\ndata: {}\n\n", data.unwrap_or_default());
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn event_id_round_trips_and_other_texts_are_rejected() {
        let cursor = Cursor { run_id: 7, number: 12 };
        assert_eq!(encode_event_id(cursor), "0000000000000007-12");
        assert_eq!(decode_event_id(&encode_event_id(cursor)), Some(cursor));
        for other in ["", "12", "7-", "-7", "x-1", "7-1x", "7--1"] {
            assert_eq!(decode_event_id(other), None, "{other}");
        }
    }
}
