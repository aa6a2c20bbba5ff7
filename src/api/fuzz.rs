//! What the fuzz targets `bodies`, `cursors` and `headers` call: requests are read as the handlers read them, and what
//! is accepted is held against the table of bounds. Compiled for fuzzing and for tests only.

use std::collections::HashSet;

use axum::http::{HeaderMap, HeaderValue};
use serde_json::Value;
use serde_json::value::RawValue;

use super::batch::{self, Completing};
use super::claims::{self, Claim};
use super::extract::{BatchBody, Peer, Query, wait};
use super::listing::{read_place, read_ready, write_place, write_ready};
use super::object::Object;
use super::problem::Problem;
use super::reports::Failed;
use super::request_id::RequestId;
use super::scan::scan;
use super::trace_context::TraceContext;
use super::{queues, reply, reports, submit};
use crate::dispatch::Request;
use crate::domain::limits::{self, Bound};
use crate::domain::retry::{Backoff, Growth};
use crate::domain::slot::Shards;
use crate::domain::task::{Dedupe, Document, ErrorReport, Labels, NewTask, Start};
use crate::store::ops::complete::Completion;
use crate::store::ops::heartbeat::Beat;
use crate::store::ops::release::Release;

/// What an answer that refuses a request has at most, in bytes.
const REFUSAL_BYTES: usize = 4096;

/// Bodies: each is read as every request that there is.
pub fn bodies(bytes: &[u8]) {
    scanner_and_parser_agree(bytes);
    let Some(body) = taken(BatchBody::of(bytes.to_vec())) else { return };
    let Some(shards) = Shards::new(16) else { return };
    let (peer, headers) = (Peer(([127, 0, 0, 1], 1).into()), HeaderMap::new());
    let each = |read: &dyn Fn(&Object<'_>) -> Result<(), Problem>| {
        taken(body.object().and_then(|object| read(&object)));
    };
    each(&|object| {
        let new = submit::read(object, shards)?;
        object.finish().map(|()| task(new))
    });
    each(&|object| {
        let items = batch::list(object, "tasks")?;
        object.finish()?;
        for (item, raw) in items.fields().zip(items.raw()) {
            if let Some((new, _)) = taken(batch::item_of(shards, &item, raw)) {
                task(new);
            }
        }
        Ok(())
    });
    each(&|object| claims::read(object, peer, &headers).map(claim));
    each(&|object| {
        let (done, next) = claims::completing(object, peer, &headers)?;
        completion(done);
        next.into_iter().for_each(claim);
        Ok(())
    });
    each(&|object| {
        let Completing { ids, mut completions, next } = batch::completing(object, peer, &headers)?;
        count(ids.len());
        completions.take_open().into_iter().for_each(completion);
        next.into_iter().for_each(claim);
        Ok(())
    });
    each(&|object| reports::failed(object).map(failed));
    each(&|object| {
        let Release { held: _, delay_ms } = reports::released(object)?;
        within(delay_ms, limits::DELAY_MS);
        Ok(())
    });
    each(&|object| {
        let reports::Heartbeat { ids, mut beats, .. } = reports::beats(object)?;
        count(ids.len());
        for Beat { held: _, lease_ms, progress } in beats.take_open() {
            lease_ms.into_iter().for_each(|ms| within(ms, limits::LEASE_MS));
            progress.iter().for_each(document);
        }
        Ok(())
    });
    each(&|object| {
        let states = queues::purged(object)?;
        assert!((1..=6).contains(&states.len()));
        Ok(())
    });
    each(&|object| object.finish());
}

/// What is accepted; a refusal is short, whatever was sent.
fn taken<T>(read: Result<T, Problem>) -> Option<T> {
    let problem = match read {
        Ok(accepted) => return Some(accepted),
        Err(problem) => problem,
    };
    assert!(problem.status().is_client_error());
    assert!(reply::encode(&problem).len() <= REFUSAL_BYTES, "{problem:?}");
    None
}

/// The look over the bytes and the lenient parser together take what a strict parser takes, up to the depth.
fn scanner_and_parser_agree(bytes: &[u8]) {
    let scanned = scan(bytes, limits::DEPTH);
    let ours = scanned.is_ok() && serde_json::from_slice::<&RawValue>(bytes).is_ok();
    match serde_json::from_slice::<Value>(bytes) {
        Ok(value) => {
            let fits = depth(&value) <= limits::DEPTH;
            assert_eq!(scanned.is_ok(), fits, "{scanned:?}");
            assert_eq!(ours, fits);
        }
        Err(error) => {
            let error = error.to_string();
            // What a strict parser cannot hold is JSON all the same; and one name means something to this one alone.
            let own = error.starts_with("number out of range") || bytes.windows(7).any(|part| part == b"private");
            assert!(!ours || own, "{error}");
        }
    }
}

/// Open brackets.
fn depth(value: &Value) -> usize {
    match value {
        Value::Array(values) => 1 + values.iter().map(depth).max().unwrap_or(0),
        Value::Object(fields) => 1 + fields.values().map(depth).max().unwrap_or(0),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => 0,
    }
}

fn within(number: i64, bound: Bound) {
    assert!((bound.min..=bound.max).contains(&number), "{number}");
}

fn name(text: &str, max: usize) {
    assert!((1..=max).contains(&text.len()), "{text:?}");
}

fn document(document: &Document) {
    assert!(document.get().len() <= limits::DOCUMENT_BYTES);
}

fn count(items: usize) {
    assert!((1..=limits::BATCH).contains(&items));
}

fn task(task: NewTask) {
    let NewTask {
        id,
        queue: _,
        slot,
        priority,
        payload,
        labels,
        start,
        expires_in_ms,
        max_attempts,
        backoff,
        max_run_ms,
        retain_ms,
        dedupe,
    } = task;
    assert_eq!(id.slot(), slot);
    within(priority.into(), limits::PRIORITY);
    document(&payload);
    let Labels { key, tags, headers } = labels;
    key.iter().for_each(|key| name(key, limits::NAME_BYTES));
    tags.iter().for_each(|tag| name(tag, limits::TAG_BYTES));
    assert!(tags.len() <= limits::TAGS && headers.len() <= limits::HEADERS);
    let bytes = tags.iter().map(String::len).sum::<usize>()
        + headers.iter().map(|(name, value)| name.len() + value.len()).sum::<usize>();
    assert!(bytes <= limits::LABEL_BYTES);
    if let Start::In(ms) = start {
        within(ms, limits::DELAY_MS);
    }
    expires_in_ms.into_iter().for_each(|ms| within(ms, limits::EXPIRES_IN_MS));
    within(max_attempts.into(), limits::MAX_ATTEMPTS);
    backoff.iter().for_each(waits);
    within(max_run_ms, limits::MAX_RUN_MS);
    retain_ms.into_iter().for_each(|ms| within(ms, limits::RETAIN_MS));
    if let Some(Dedupe { digest: _, mode: _, window_ms }) = dedupe {
        window_ms.into_iter().for_each(|ms| within(ms, limits::WINDOW_MS));
    }
}

/// No attempt waits longer than the longest wait that can be asked for.
fn waits(backoff: &Backoff) {
    if let Growth::List { delays_ms } = &backoff.growth {
        assert!((1..=limits::BACKOFF_LIST).contains(&delays_ms.len()));
    }
    for attempt in [0, 1, 2, 3, 1000, u32::MAX] {
        within(backoff.wait_ms(attempt, 0.999), limits::BACKOFF_MAX_MS);
    }
}

fn claim(asked: Claim) {
    let Claim { request: Request { queues, max, lease_ms, worker, claim: _ }, wait, .. } = asked;
    assert!((1..=limits::CLAIM_QUEUES).contains(&queues.len()));
    assert_eq!(queues.iter().collect::<HashSet<_>>().len(), queues.len(), "a queue stands twice");
    within(i64::try_from(max).unwrap_or(i64::MAX), limits::CLAIM_MAX);
    within(lease_ms, limits::LEASE_MS);
    name(&worker, limits::NAME_BYTES);
    within(i64::try_from(wait.as_millis()).unwrap_or(i64::MAX), limits::WAIT_MS);
}

fn completion(done: Completion) {
    let Completion { held: _, result } = done;
    document(&result);
}

fn failed(reported: Failed) {
    let Failed { held: _, report, retry: _, retry_in } = reported;
    let ErrorReport { worker: _, kind, message, details } = report;
    name(&kind, limits::NAME_BYTES);
    assert!(message.len() <= limits::MESSAGE_BYTES);
    details.iter().for_each(document);
    retry_in.into_iter().for_each(|ms| within(ms, limits::RETRY_IN_MS));
}

/// Query strings, and the cursors in them: what is taken for a cursor is what a list would have given.
pub fn cursors(bytes: &[u8]) {
    let Ok(text) = std::str::from_utf8(bytes) else { return };
    cursor(text);
    let Some(mut query) = taken(Query::parse(text)) else { return };
    query.take("cursor").iter().for_each(|text| cursor(text));
    if let Some(limit) = taken(query.int("limit", limits::PAGE)).flatten() {
        within(limit, limits::PAGE);
    }
    taken(query.finish());
}

fn cursor(text: &str) {
    if let Some(place) = read_ready(text) {
        assert_eq!(write_ready(place), text);
    }
    if let Some(place) = read_place(text) {
        assert_eq!(write_place(place), text);
    }
}

/// `Idempotency-Key`, `Prefer`, `X-Request-Id`, and a trace context.
pub fn headers(bytes: &[u8]) {
    let Ok(value) = HeaderValue::from_bytes(bytes) else { return };
    let headers: HeaderMap = ["idempotency-key", "prefer", "x-request-id", "traceparent", "tracestate"]
        .map(|name| (axum::http::HeaderName::from_static(name), value.clone()))
        .into_iter()
        .collect();
    if let Some(key) = taken(submit::idempotency_key(&headers)).flatten() {
        name(&key, limits::NAME_BYTES);
        assert!(key.bytes().all(|byte| (b' '..=b'~').contains(&byte)));
    }
    if let Some(id) = RequestId::given(&headers) {
        assert_eq!(id.as_str().as_bytes(), bytes);
    }
    if let Some(context) = TraceContext::of(&headers) {
        let mut labels = Labels::default();
        context.hang_on(&mut labels);
        let parent = labels.headers.get("traceparent").map(|parent| parent.as_bytes());
        assert!(parent == Some(bytes) && labels.headers.len() <= 2);
    }
    if let Some((time, applied)) = taken(wait(None, &headers)) {
        within(i64::try_from(time.as_millis()).unwrap_or(i64::MAX), limits::WAIT_MS);
        let said = applied.map(|applied| applied.as_bytes().to_vec());
        assert!(said.is_none_or(|said| said == format!("wait={}", time.as_secs()).into_bytes()));
    }
}

#[cfg(test)]
mod tests {
    use crate::domain::fuzz::replay;

    #[test]
    fn seeds_of_bodies_cursors_and_headers_hold() {
        replay("bodies", super::bodies);
        replay("cursors", super::cursors);
        replay("headers", super::headers);
    }
}
