//! `GET /events`: what becomes of tasks, as server-sent events.

use std::convert::Infallible;
use std::fmt::Write as _;
use std::time::Duration;

use axum::body::Body;
use axum::extract::State as Shared;
use axum::http::{HeaderMap, HeaderValue, Method, Uri, header};
use axum::response::Response;
use futures_util::StreamExt as _;
use futures_util::stream;
use serde::Serialize;

use super::Api;
use super::extract::Query;
use super::problem::{Code, Problem};
use super::reply::Shown;
use crate::dispatch::{Event, Mark, Told};
use crate::domain::id::TaskId;
use crate::domain::limits;
use crate::domain::queue::QueueName;
use crate::domain::state::State;
use crate::domain::time::Millis;
use crate::store::change::Change;

/// A stream that has nothing to say says so this often, so that nobody on the way takes it for dead.
const KEEP_ALIVE: Duration = Duration::from_secs(15);
/// When a client shall come back whose stream has ended, ms: before its place among the events is forgotten.
const RETRY_MS: u32 = 2000;

#[derive(Serialize)]
struct TaskChange<'a> {
    id: Shown<TaskId>,
    queue: &'a str,
    from: Option<&'static str>,
    state: Option<&'static str>,
    at: Shown<Millis>,
}

#[derive(Serialize)]
struct Missed {
    count: Option<u64>,
}

pub(super) async fn listen(
    Shared(api): Shared<Api>,
    method: Method,
    uri: Uri,
    headers: HeaderMap,
) -> Result<Response, Problem> {
    let (query, names) = Query::parse_with_many(uri.query().unwrap_or_default(), "queue")?;
    query.finish()?;
    let queues = queues(&names)?;
    if method == Method::HEAD {
        // Nobody listens.
        return Ok(streaming(Body::from_stream(stream::empty::<Result<String, Infallible>>())));
    }
    let seen = headers.get("last-event-id").filter(|id| !id.is_empty());
    // One that no server has given is as one of a server that is gone.
    let seen = seen.map(|id| id.to_str().ok().and_then(read_id).unwrap_or(Mark { run: 0, number: 0 }));
    let is_new = seen.is_none();
    let listener = api.dispatch.listen(queues, seen).await?;
    let mut hello = format!("retry: {RETRY_MS}\n");
    if is_new {
        // So that whoever loses its stream before the first event can go on from here.
        let _ = writeln!(hello, "id: {}", show_id(listener.mark()));
    }
    hello.push('\n');
    let events = stream::unfold(listener, |mut listener| async move {
        let events = listener.next(KEEP_ALIVE).await?;
        Some((text(listener.mark(), &events), listener))
    });
    let chunks = stream::iter([hello]).chain(events).map(Ok::<_, Infallible>);
    Ok(streaming(Body::from_stream(chunks)))
}

fn streaming(body: Body) -> Response {
    let mut response = Response::new(body);
    for (name, value) in [
        (header::CONTENT_TYPE.as_str(), "text/event-stream"),
        (header::CACHE_CONTROL.as_str(), "no-store"),
        // Some proxies keep back what comes until there is more of it.
        ("x-accel-buffering", "no"),
    ] {
        response.headers_mut().insert(name, HeaderValue::from_static(value));
    }
    response
}

fn queues(names: &[String]) -> Result<Vec<QueueName>, Problem> {
    if names.len() > limits::CLAIM_QUEUES {
        let detail = format!("there may be {} queues, or none for all", limits::CLAIM_QUEUES);
        return Err(Problem::at("?queue", Code::TooLong, detail));
    }
    let queue = |name: &String| QueueName::parse(name).ok_or_else(|| Problem::invalid_queue("?queue"));
    names.iter().map(queue).collect()
}

fn show_id(Mark { run, number }: Mark) -> String {
    format!("{run:016x}-{number}")
}

fn read_id(text: &str) -> Option<Mark> {
    let (run, number) = text.split_once('-')?;
    Some(Mark { run: u64::from_str_radix(run, 16).ok()?, number: number.parse().ok()? })
}

/// The events as they are sent; the place behind them alone if there are none: a client keeps it as that of an event.
fn text(place: Mark, events: &[Event]) -> String {
    if events.is_empty() {
        return format!("id: {}\n\n", show_id(place));
    }
    let mut text = String::new();
    for Event { number, told } in events {
        let (name, data) = match told {
            Told::Change(Change { id, queue, from, to, at }) => {
                let (from, state) = (from.map(State::as_str), to.map(State::as_str));
                let change = TaskChange { id: Shown(*id), queue: queue.as_str(), from, state, at: Shown(*at) };
                ("task", serde_json::to_string(&change))
            }
            Told::Missed(count) => ("missed", serde_json::to_string(&Missed { count: *count })),
        };
        let id = show_id(Mark { number: *number, ..place });
        // Our own shapes have no failing parts.
        let _ = write!(text, "event: {name}\nid: {id}\ndata: {}\n\n", data.unwrap_or_default());
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_id_reads_back_and_other_texts_are_none() {
        let mark = Mark { run: 7, number: 12 };
        assert_eq!(show_id(mark), "0000000000000007-12");
        assert_eq!(read_id(&show_id(mark)), Some(mark));
        for other in ["", "12", "7-", "-7", "x-1", "7-1x", "7--1"] {
            assert_eq!(read_id(other), None, "{other}");
        }
    }
}
