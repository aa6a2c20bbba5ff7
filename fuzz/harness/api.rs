//! Harness of the fuzz targets `bodies`, `cursors` and `headers`: parses requests as the handlers do, and checks
//! accepted ones against the limits. Compiled only for fuzzing and tests.

use std::collections::HashSet;

use axum::http::{HeaderMap, HeaderValue};
use serde_json::Value;
use serde_json::value::RawValue;

use super::batch::{self, CompletionBatch};
use super::body::{BatchBody, ReportBody};
use super::claims::{self, Claim};
use super::extract::{Query, parse_wait};
use super::json::fields::Fields;
use super::json::validate::{JsonDefect, validate};
use super::list::{decode_cursor, decode_ready_cursor, encode_cursor, encode_ready_cursor};
use super::problem::Problem;
use super::reports::FailRequest;
use super::request_id::RequestId;
use super::response;
use super::trace_context::TraceContext;
use super::{queues, report_batches, reports, submit, tasks};
use crate::dispatch::ClaimRequest;
use crate::domain::id::TaskId;
use crate::domain::limits::{self, ValueRange};
use crate::domain::retry::{Backoff, BackoffKind};
use crate::domain::slot::{Shards, Slot};
use crate::domain::task::{Attributes, Dedupe, ErrorReport, NewTask, RawJson, StartTime};
use crate::http_server::Peer;
use crate::store::ops::complete::Completion;
use crate::store::ops::heartbeat::LeaseHeartbeat;
use crate::store::ops::release::Release;

/// Maximum size of a problem response.
const MAX_PROBLEM_BYTES: usize = 4096;

/// Parses a body as each kind of request.
pub fn bodies(bytes: &[u8]) {
    scanner_and_parser_agree(bytes);
    report_bodies(bytes);
    let Some(body) = accepted(BatchBody::from_bytes(bytes.to_vec())) else { return };
    let Some(shards) = Shards::new(16) else { return };
    let (peer, headers) = (Peer(([127, 0, 0, 1], 1).into()), HeaderMap::new());
    let read_as = |read: &dyn Fn(&Fields<'_>) -> Result<(), Problem>| {
        accepted(body.object().and_then(|object| read(&object)));
    };
    read_as(&|object| {
        let new = submit::parse_task(object, shards)?;
        object.deny_unknown().map(|()| assert_task(new))
    });
    read_as(&|object| {
        let items = object.batch_items("tasks")?;
        object.deny_unknown()?;
        for (item, raw) in items.fields().zip(items.raw_json()) {
            if let Some((new, _)) = accepted(batch::parse_item(shards, &item, raw)) {
                assert_task(new);
            }
        }
        Ok(())
    });
    read_as(&|object| claims::parse_claim(object, peer, &headers).map(assert_claim));
    read_as(&|object| {
        let id = TaskId::new(uuid::Uuid::nil(), Slot::of_key(b""));
        let release = tasks::parse_release(id, object)?;
        assert_in_range(release.delay_ms, limits::DELAY_MS);
        Ok(())
    });
    read_as(&|object| {
        let states = queues::parse_states(object)?;
        assert!((1..=6).contains(&states.len()));
        Ok(())
    });
    read_as(&|object| object.deny_unknown());
}

/// Parses a body as each kind of report.
fn report_bodies(bytes: &[u8]) {
    let body = ReportBody::from_bytes(bytes.to_vec());
    let (peer, headers) = (Peer(([127, 0, 0, 1], 1).into()), HeaderMap::new());
    let read_as = |read: &dyn Fn(&Fields<'_>) -> Result<(), Problem>| {
        accepted(body.object().and_then(|object| read(&object)));
    };
    read_as(&|object| {
        let (done, _, next) = claims::parse_completion_and_claim(object, body.adjusted(), peer, &headers)?;
        assert_completion(done);
        next.into_iter().for_each(assert_claim);
        Ok(())
    });
    read_as(&|object| {
        let CompletionBatch { items, mut completions, next } =
            batch::parse_completions(object, &body.adjusted(), peer, &headers)?;
        assert_batch_size(items.len());
        completions.take_pending().into_iter().for_each(assert_completion);
        next.into_iter().for_each(assert_claim);
        Ok(())
    });
    read_as(&|object| reports::parse_failure(object, body.adjusted()).map(assert_failure));
    read_as(&|object| {
        let mut batch = report_batches::parse_failures(object, &body.adjusted())?;
        batch.reports.take_pending().into_iter().for_each(assert_failure);
        Ok(())
    });
    read_as(&|object| {
        for Release { delay_ms, .. } in report_batches::parse_releases(object, &body.adjusted())?.reports.take_pending()
        {
            assert_in_range(delay_ms, limits::DELAY_MS);
        }
        Ok(())
    });
    read_as(&|object| {
        let (Release { lease_ref: _, by: _, delay_ms }, _) = reports::parse_release(object, body.adjusted())?;
        assert_in_range(delay_ms, limits::DELAY_MS);
        Ok(())
    });
    read_as(&|object| {
        let reports::HeartbeatRequest { items, heartbeats: mut beats, .. } =
            reports::parse_heartbeats(object, body.adjusted())?;
        assert_batch_size(items.len());
        for LeaseHeartbeat { lease_ref: _, lease_ms, progress } in beats.take_pending() {
            lease_ms.into_iter().for_each(|ms| assert_in_range(ms, limits::LEASE_MS));
            progress.iter().for_each(assert_document);
        }
        Ok(())
    });
}

/// Returns the accepted value. A problem must be short, whatever the input.
fn accepted<T>(read: Result<T, Problem>) -> Option<T> {
    let problem = match read {
        Ok(accepted) => return Some(accepted),
        Err(problem) => problem,
    };
    assert!(problem.status().is_client_error());
    assert!(response::encode(&problem).len() <= MAX_PROBLEM_BYTES, "{problem:?}");
    None
}

/// Requires that the scanner and the lenient parser together accept exactly what a strict parser accepts, up to the
/// depth, and without repeated names.
fn scanner_and_parser_agree(bytes: &[u8]) {
    let scanned = validate(bytes, limits::MAX_JSON_DEPTH);
    let is_accepted = scanned.is_ok() && serde_json::from_slice::<&RawValue>(bytes).is_ok();
    match serde_json::from_slice::<Value>(bytes) {
        // The strict parser keeps the last value of a name.
        Ok(_) if matches!(scanned, Err(JsonDefect::DuplicateName(_))) => {}
        Ok(value) => {
            let fits = depth(&value) <= limits::MAX_JSON_DEPTH;
            assert_eq!(scanned.is_ok(), fits, "{scanned:?}");
            assert_eq!(is_accepted, fits);
        }
        Err(error) => {
            // serde_json gives one name a private meaning.
            let is_known_difference = bytes.windows(7).any(|part| part == b"private");
            assert!(!is_accepted || is_known_difference, "{error}");
        }
    }
}

/// Returns the nesting depth.
fn depth(value: &Value) -> usize {
    match value {
        Value::Array(values) => 1 + values.iter().map(depth).max().unwrap_or(0),
        Value::Object(fields) => 1 + fields.values().map(depth).max().unwrap_or(0),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => 0,
    }
}

fn assert_in_range(number: i64, range: ValueRange) {
    assert!((range.min..=range.max).contains(&number), "{number}");
}

fn assert_name_length(text: &str, max: usize) {
    assert!((1..=max).contains(&text.len()), "{text:?}");
}

fn assert_document(document: &RawJson) {
    assert!(document.get().len() <= limits::MAX_JSON_BYTES);
    assert_eq!(validate(document.get().as_bytes(), limits::MAX_JSON_DEPTH), Ok(()));
}

fn assert_batch_size(items: usize) {
    assert!((1..=limits::MAX_BATCH_ITEMS).contains(&items));
}

fn assert_task(task: NewTask) {
    let NewTask {
        id,
        may_be_stored,
        queue: _,
        slot,
        key_digest,
        priority,
        payload,
        attributes: labels,
        start,
        expires_in_ms,
        max_attempts,
        max_acquired,
        backoff,
        max_run_ms,
        retain_ms,
        dedupe,
    } = task;
    assert_eq!((id.slot(), may_be_stored), (slot, false));
    assert_in_range(priority.into(), limits::PRIORITY);
    assert_document(&payload);
    let Attributes { key, tags, headers } = labels;
    assert_eq!(key_digest.is_some(), key.is_some() || dedupe.is_some());
    key.iter().for_each(|key| assert_name_length(key, limits::MAX_NAME_BYTES));
    tags.iter().for_each(|tag| assert_name_length(tag, limits::MAX_TAG_BYTES));
    assert!(tags.len() <= limits::MAX_TAGS && headers.len() <= limits::MAX_HEADERS);
    let bytes = tags.iter().map(String::len).sum::<usize>()
        + headers.iter().map(|(name, value)| name.len() + value.len()).sum::<usize>();
    assert!(bytes <= limits::MAX_ATTRIBUTES_BYTES);
    assert_in_range(max_acquired, limits::MAX_ACQUIRED);
    if let StartTime::After(ms) = start {
        assert_in_range(ms, limits::DELAY_MS);
    }
    expires_in_ms.into_iter().for_each(|ms| assert_in_range(ms, limits::EXPIRES_IN_MS));
    assert_in_range(max_attempts.into(), limits::MAX_ATTEMPTS);
    backoff.iter().for_each(assert_backoff);
    assert_in_range(max_run_ms, limits::MAX_RUN_MS);
    retain_ms.into_iter().for_each(|ms| assert_in_range(ms, limits::RETAIN_MS));
    if let Some(Dedupe { digest: _, mode: _, window_ms }) = dedupe {
        window_ms.into_iter().for_each(|ms| assert_in_range(ms, limits::DEDUPE_WINDOW_MS));
    }
}

/// Requires that no attempt is delayed longer than the maximum delay.
fn assert_backoff(backoff: &Backoff) {
    if let BackoffKind::List { delays_ms } = &backoff.kind {
        assert!((1..=limits::MAX_BACKOFF_DELAYS).contains(&delays_ms.len()));
    }
    for attempt in [0, 1, 2, 3, 1000, u32::MAX] {
        assert_in_range(backoff.wait_ms(attempt, 0.999), limits::BACKOFF_MAX_MS);
    }
}

fn assert_claim(claim: Claim) {
    let Claim { request: ClaimRequest { queues, max, lease_ms, worker, claim_id: _ }, wait, .. } = claim;
    assert!((1..=limits::MAX_CLAIM_QUEUES).contains(&queues.len()));
    assert_eq!(queues.iter().collect::<HashSet<_>>().len(), queues.len(), "duplicate queue");
    assert_in_range(i64::try_from(max).unwrap_or(i64::MAX), limits::CLAIM_TASKS);
    assert_in_range(lease_ms, limits::LEASE_MS);
    assert_name_length(&worker, limits::MAX_NAME_BYTES);
    assert_in_range(i64::try_from(wait.as_millis()).unwrap_or(i64::MAX), limits::WAIT_MS);
}

fn assert_completion(completion: Completion) {
    let Completion { lease_ref: _, result } = completion;
    assert_document(&result);
}

fn assert_failure(failure: FailRequest) {
    let FailRequest { lease_ref: _, report, retry: _, retry_in, adjusted: _ } = failure;
    let ErrorReport { worker: _, kind, message, details } = report;
    assert_name_length(&kind, limits::MAX_NAME_BYTES);
    assert!(message.len() <= limits::MAX_MESSAGE_BYTES);
    details.iter().for_each(assert_document);
    retry_in.into_iter().for_each(|ms| assert_in_range(ms, limits::RETRY_IN_MS));
}

/// Parses query strings and cursors. An accepted cursor must equal the one that a list would return.
pub fn cursors(bytes: &[u8]) {
    let Ok(text) = std::str::from_utf8(bytes) else { return };
    assert_cursor(text);
    let Some(mut query) = accepted(Query::parse(text)) else { return };
    query.optional("cursor").iter().for_each(|text| assert_cursor(text));
    if let Some(limit) = accepted(query.int("limit", limits::PAGE_SIZE)).flatten() {
        assert_in_range(limit, limits::PAGE_SIZE);
    }
    accepted(query.deny_unknown());
}

fn assert_cursor(text: &str) {
    if let Some(place) = decode_ready_cursor(text) {
        assert_eq!(encode_ready_cursor(place), text);
    }
    if let Some(place) = decode_cursor(text) {
        assert_eq!(encode_cursor(place), text);
    }
}

/// Parses `Idempotency-Key`, `Prefer`, `X-Request-Id`, and a trace context.
pub fn headers(bytes: &[u8]) {
    let Ok(value) = HeaderValue::from_bytes(bytes) else { return };
    let headers: HeaderMap = ["idempotency-key", "prefer", "x-request-id", "traceparent", "tracestate"]
        .map(|name| (axum::http::HeaderName::from_static(name), value.clone()))
        .into_iter()
        .collect();
    if let Some(key) = accepted(submit::idempotency_key(&headers)).flatten() {
        assert_name_length(&key, limits::MAX_NAME_BYTES);
        assert!(key.bytes().all(|byte| (b' '..=b'~').contains(&byte)));
    }
    if let Some(id) = RequestId::from_headers(&headers) {
        assert_eq!(id.as_str().as_bytes(), bytes);
    }
    if let Some(context) = TraceContext::from_headers(&headers) {
        let mut labels = Attributes::default();
        context.attach_to(&mut labels);
        let parent = labels.headers.get("traceparent").map(|parent| parent.as_bytes());
        assert!(parent == Some(bytes) && labels.headers.len() <= 2);
    }
    if let Some((time, applied)) = accepted(parse_wait(None, &headers)) {
        assert_in_range(i64::try_from(time.as_millis()).unwrap_or(i64::MAX), limits::WAIT_MS);
        let applied_header = applied.map(|applied| applied.as_bytes().to_vec());
        assert!(applied_header.is_none_or(|said| said == format!("wait={}", time.as_secs()).into_bytes()));
    }
}

#[cfg(test)]
mod tests {
    use crate::domain::fuzz::replay;

    #[test]
    fn seeds_of_bodies_cursors_and_headers_pass() {
        replay("bodies", super::bodies);
        replay("cursors", super::cursors);
        replay("headers", super::headers);
    }
}
