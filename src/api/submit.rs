//! `POST /tasks`: submits a task.

use axum::extract::State as Shared;
use axum::http::{HeaderMap, HeaderName, HeaderValue, StatusCode, header};
use axum::response::Response;
use serde_json::value::RawValue;
use uuid::Uuid;

use super::body::SingleBody;
use super::extract::single_header;
use super::json::fields::{Field, Fields};
use super::json::rewrite::canonical;
use super::json::shapes::{SubmittedTaskJson, TaskJson};
use super::problem::{Code, Problem};
use super::response;
use super::state::Api;
use super::trace_context::TraceContext;
use crate::dispatch::{IdempotencyKey, SubmitOutcome};
use crate::domain::digest::{Digest, KeyDigest};
use crate::domain::id::TaskId;
use crate::domain::limits;
use crate::domain::queue::QueueName;
use crate::domain::retry::{Backoff, BackoffKind, Jitter};
use crate::domain::slot::{Shards, Slot};
use crate::domain::task::{Attributes, Dedupe, DedupeMode, NewTask, StartTime};

static IDEMPOTENCY_KEY: HeaderName = HeaderName::from_static("idempotency-key");

/// Returns the HTTP status of a submit.
pub(super) fn status(outcome: &SubmitOutcome) -> StatusCode {
    if outcome.is_created { StatusCode::CREATED } else { StatusCode::OK }
}

/// Returns the response to a submit. If the task has been deleted since, its state is null.
pub(super) fn submitted_task(outcome: &SubmitOutcome) -> SubmittedTaskJson<'_> {
    let mut task = TaskJson::from(&outcome.task);
    if outcome.is_deleted {
        task.state = None;
    }
    SubmittedTaskJson { task, deduplicated: !outcome.is_created }
}

pub(super) async fn submit(Shared(api): Shared<Api>, body: SingleBody) -> Result<Response, Problem> {
    let object = body.object()?;
    let mut task = parse_task(&object, api.store().layout())?;
    object.deny_unknown()?;
    if let Some(context) = TraceContext::from_headers(body.headers()) {
        context.attach_to(&mut task.attributes);
    }
    let idempotency =
        idempotency_key(body.headers())?.map(|key| IdempotencyKey::new(&key, &task.queue, &canonical(body.text())));
    let outcome = api.dispatch.submit(vec![(task, idempotency)]).await.pop();
    let outcome = outcome.ok_or_else(|| Problem::new(Code::Internal, "the submit has no result"))??;
    let mut response = response::json(status(&outcome), &submitted_task(&outcome));
    if outcome.is_created
        && let Ok(location) = HeaderValue::from_str(&format!("/tasks/{}", outcome.task.id))
    {
        response.headers_mut().insert(header::LOCATION, location);
    }
    Ok(response)
}

/// Parses the `Idempotency-Key` header, bare or as a quoted string.
pub(super) fn idempotency_key(headers: &HeaderMap) -> Result<Option<String>, Problem> {
    let invalid = |detail: &str| Err(Problem::at("header:Idempotency-Key", Code::InvalidHeader, detail));
    let Some(value) = single_header(headers, &IDEMPOTENCY_KEY, "Idempotency-Key")? else { return Ok(None) };
    let Ok(text) = value.to_str() else { return invalid("the key must be visible ASCII") };
    let text = text.trim();
    let bare = match text.strip_prefix('"') {
        None => text,
        Some(rest) => rest.strip_suffix('"').unwrap_or_default(),
    };
    // `to_str` accepts tabs.
    if bare.contains('\t') {
        return invalid("the key must be visible ASCII");
    }
    if bare.is_empty() || bare.len() > limits::MAX_NAME_BYTES {
        return invalid("the key must have 1 to 256 bytes");
    }
    Ok(Some(bare.to_owned()))
}

/// Parses the fields of a task. The caller reads the other fields of the object and rejects unknown ones.
pub(super) fn parse_task(object: &Fields<'_>, shards: Shards) -> Result<NewTask, Problem> {
    let queue = object.optional("queue").map_or(Ok(QueueName::default_queue()), |field| field.queue_name())?;
    let payload = match object.optional("payload") {
        Some(field) => field.document()?,
        None => RawValue::NULL.to_owned(),
    };
    let key = object.optional_name("key")?;
    let priority = object.int_or_default("priority", limits::PRIORITY)?;
    let delay_ms = object.int_or_default("delay_ms", limits::DELAY_MS)?;
    let start = match object.optional("run_at") {
        None => StartTime::After(delay_ms),
        // A delay of 0 is none: some clients send every default.
        Some(field) if delay_ms == 0 => StartTime::At(field.timestamp()?),
        Some(field) => return Err(field.must(Code::InvalidValue, "and delay_ms exclude each other")),
    };
    let expires_in_ms = object.optional_int("expires_in_ms", limits::EXPIRES_IN_MS)?;
    if let (StartTime::After(delay_ms), Some(expires_in_ms), Some(field)) =
        (start, expires_in_ms, object.optional("delay_ms"))
        && delay_ms >= expires_in_ms
    {
        let detail = "delay_ms must be less than expires_in_ms: the task would expire before it is ready";
        return Err(field.invalid(Code::InvalidTime, detail));
    }
    let max_attempts = object.int_or_default("max_attempts", limits::MAX_ATTEMPTS)?;
    let max_acquired = object.int_or_default("max_acquired", limits::MAX_ACQUIRED)?;
    let backoff = object.optional("backoff").map(|field| parse_backoff(&field)).transpose()?;
    let max_run_ms = object.int_or_default("max_run_ms", limits::MAX_RUN_MS)?;
    let retain_ms = object.optional_int("retain_ms", limits::RETAIN_MS)?;
    let attributes = parse_attributes(object, key)?;
    let dedupe = object.optional("dedupe").map(|field| parse_dedupe(&field)).transpose()?;
    let routing_key = match (&attributes.key, &dedupe) {
        (Some(key), _) => Some(key.clone()),
        (None, Some((key, _, _))) => Some(key.clone()),
        (None, None) => None,
    };
    let slot = match &routing_key {
        Some(key) => Slot::of_key(key.as_bytes()),
        None => shards.keyless_slot(queue.as_str(), rand::random()),
    };
    let dedupe = dedupe.map(|(key, mode, window_ms)| {
        let task_key = attributes.key.as_deref();
        let digest = Digest::of(&[
            queue.as_str().as_bytes(),
            if task_key.is_some() { b"k" } else { b"" },
            task_key.unwrap_or_default().as_bytes(),
            key.as_bytes(),
        ]);
        Dedupe { digest, mode, window_ms }
    });
    Ok(NewTask {
        id: TaskId::new(Uuid::now_v7(), slot),
        may_be_stored: false,
        queue,
        slot,
        key_digest: routing_key.map(|key| KeyDigest::of_key(key.as_bytes())),
        priority: u8::try_from(priority).unwrap_or(u8::MAX),
        payload,
        attributes,
        start,
        expires_in_ms,
        max_attempts: u32::try_from(max_attempts).unwrap_or(u32::MAX),
        max_acquired,
        backoff,
        max_run_ms,
        retain_ms,
        dedupe,
    })
}

/// Parses tags and headers, whose size is limited together.
fn parse_attributes(object: &Fields<'_>, key: Option<String>) -> Result<Attributes, Problem> {
    let mut bytes = 0;
    let mut check_size = |field: &Field<'_>, length: usize| {
        bytes += length;
        if bytes > limits::MAX_ATTRIBUTES_BYTES {
            return Err(field.invalid(Code::TooLong, "tags and headers take at most 16 KiB together"));
        }
        Ok(())
    };
    let mut tags = Vec::new();
    if let Some(field) = object.optional("tags") {
        for tag in field.list(limits::MAX_TAGS, Code::TooLong)?.fields() {
            tags.push(tag.nonempty_text(limits::MAX_TAG_BYTES)?);
        }
        check_size(&field, tags.iter().map(String::len).sum())?;
    }
    let mut headers = std::collections::BTreeMap::new();
    if let Some(field) = object.optional("headers") {
        headers = field.string_map(limits::MAX_HEADERS)?;
        check_size(&field, headers.iter().map(|(name, value)| name.len() + value.len()).sum())?;
    }
    Ok(Attributes { key, tags, headers })
}

/// Parses the dedupe key, the mode, and the window in ms.
fn parse_dedupe(field: &Field<'_>) -> Result<(String, DedupeMode, Option<i64>), Problem> {
    let object = field.object()?;
    let key = object.required("key")?.nonempty_text(limits::MAX_NAME_BYTES)?;
    let modes = [
        ("keep", DedupeMode::Keep),
        ("replace", DedupeMode::Replace),
        ("debounce", DedupeMode::Debounce),
        ("after", DedupeMode::After),
    ];
    let mode = object.optional("mode").map_or(Ok(DedupeMode::Keep), |field| field.one_of(&modes))?;
    let window = object.optional_int("window_ms", limits::DEDUPE_WINDOW_MS)?;
    object.deny_unknown()?;
    Ok((key, mode, window))
}

#[derive(Clone, Copy)]
enum BackoffName {
    Exponential,
    Fixed,
    List,
}

/// Parses a backoff. The fields of all kinds are checked, and those of its kind count: some clients send every default.
fn parse_backoff(field: &Field<'_>) -> Result<Backoff, Problem> {
    let object = field.object()?;
    let kinds = [("exponential", BackoffName::Exponential), ("fixed", BackoffName::Fixed), ("list", BackoffName::List)];
    let kind = object.optional("kind").map_or(Ok(BackoffName::Exponential), |field| field.one_of(&kinds))?;
    let jitters = [("full", Jitter::Full), ("none", Jitter::None)];
    let jitter = object.optional("jitter").map_or(Ok(Jitter::Full), |field| field.one_of(&jitters))?;
    let base_ms = object.int_or_default("base_ms", limits::BACKOFF_BASE_MS)?;
    let (min, max, default) = limits::BACKOFF_FACTOR;
    let factor = object.optional("factor").map_or(Ok(default), |field| field.float((min, max)))?;
    let max_ms = object.int_or_default("max_ms", limits::BACKOFF_MAX_MS)?;
    let delays = object.optional("delays_ms");
    let delays_ms: Vec<i64> = match &delays {
        Some(field) => {
            let list = field.list(limits::MAX_BACKOFF_DELAYS, Code::TooLong)?;
            list.fields().map(|delay| delay.int(limits::BACKOFF_MAX_MS)).collect::<Result<_, _>>()?
        }
        None => Vec::new(),
    };
    let kind = match kind {
        BackoffName::Exponential => BackoffKind::Exponential { base_ms, factor, max_ms },
        BackoffName::Fixed => BackoffKind::Fixed { base_ms },
        BackoffName::List if delays_ms.is_empty() => {
            let empty = |field: &Field<'_>| field.must(Code::InvalidValue, "must not be empty if the kind is list");
            return Err(delays.as_ref().map_or_else(|| object.missing("delays_ms"), empty));
        }
        BackoffName::List => BackoffKind::List { delays_ms },
    };
    object.deny_unknown()?;
    Ok(Backoff { kind, jitter })
}
