//! `POST /tasks`: submits a task.

use axum::extract::State as Shared;
use axum::http::{HeaderMap, HeaderValue, StatusCode, header};
use axum::response::Response;
use serde_json::value::RawValue;
use uuid::Uuid;

use super::extract::SingleBody;
use super::json::batch_results::BatchResults;
use super::json::fields::{Field, Fields};
use super::json::shapes::{SubmittedTaskJson, TaskJson};
use super::problem::{Code, Problem};
use super::response;
use super::state::Api;
use super::trace_context::TraceContext;
use crate::domain::digest::Digest;
use crate::domain::id::TaskId;
use crate::domain::limits::{self, ValueRange};
use crate::domain::queue::QueueName;
use crate::domain::retry::{Backoff, BackoffKind, Jitter};
use crate::domain::slot::{Shards, Slot};
use crate::domain::state::State;
use crate::domain::task::{Attributes, Dedupe, DedupeMode, NewTask, StartTime, Task};
use crate::domain::time::TimestampMs;
use crate::store;
use crate::store::ops::idempotency::{IdempotencyOutcome, IdempotencyRecord};
use crate::store::ops::submit::Submitted;
use crate::store::views;

/// An Idempotency-Key and the body that came with it, as digests.
#[derive(Clone, Copy, Debug)]
pub(super) struct Idempotency {
    key: Digest,
    body: Digest,
}

impl Idempotency {
    /// Keys are a caller's own; as long as nobody is known, all callers are one.
    pub(super) fn new(key: &str, body: &[u8]) -> Self {
        Idempotency { key: Digest::of(&[b"", key.as_bytes()]), body: Digest::of(&[body]) }
    }
}

/// What a submit is answered with.
#[derive(Debug)]
pub(super) struct SubmitOutcome {
    pub(super) status: StatusCode,
    task: Task,
    /// The task is gone: only what the submit said is known.
    is_deleted: bool,
}

impl SubmitOutcome {
    pub(super) fn to_json(&self) -> SubmittedTaskJson<'_> {
        let mut task = TaskJson::from(&self.task);
        if self.is_deleted {
            task.state = None;
        }
        SubmittedTaskJson { task, deduplicated: self.status == StatusCode::OK }
    }
}

pub(super) async fn submit(
    Shared(api): Shared<Api>,
    headers: HeaderMap,
    body: SingleBody,
) -> Result<Response, Problem> {
    let object = body.object()?;
    let mut task = parse_task(&object, api.store().layout())?;
    object.deny_unknown()?;
    if let Some(context) = TraceContext::from_headers(&headers) {
        context.attach_to(&mut task.attributes);
    }
    let idempotency = idempotency_key(&headers)?.map(|key| Idempotency::new(&key, body.bytes()));
    let outcome = submit_all(&api, vec![(task, idempotency)]).await.pop();
    let outcome = outcome.ok_or_else(|| Problem::new(Code::Internal, "a submit had no outcome"))??;
    let mut response = response::json(outcome.status, &outcome.to_json());
    if outcome.status == StatusCode::CREATED
        && let Ok(location) = HeaderValue::from_str(&format!("/tasks/{}", outcome.task.id))
    {
        response.headers_mut().insert(header::LOCATION, location);
    }
    Ok(response)
}

/// Parses the `Idempotency-Key` header, bare or as a quoted string.
pub(super) fn idempotency_key(headers: &HeaderMap) -> Result<Option<String>, Problem> {
    let invalid = |detail: &str| Err(Problem::at("header:Idempotency-Key", Code::InvalidHeader, detail));
    let Some(value) = headers.get("idempotency-key") else { return Ok(None) };
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

/// A task to store, and the Idempotency-Key for which it is stored once.
pub(super) type SubmitRequest = (NewTask, Option<Idempotency>);

/// Stores tasks, in their order: first the records of the keys, then the tasks under the ids that the records name,
/// then the outcomes into the records.
pub(super) async fn submit_all(api: &Api, requests: Vec<SubmitRequest>) -> Vec<Result<SubmitOutcome, Problem>> {
    let mut opened = open_records(api, &requests).await.into_iter();
    let mut items = BatchResults::new();
    for (mut task, once) in requests {
        match once.and_then(|_| opened.next()) {
            None => items.push(Ok((task, once))),
            Some(Ok(IdempotencyOutcome::Open(id))) => {
                task.id = id;
                task.slot = id.slot();
                items.push(Ok((task, once)));
            }
            Some(Ok(IdempotencyOutcome::Completed(id, status))) => {
                let status = StatusCode::from_u16(status).unwrap_or(StatusCode::OK);
                items.push_result(existing_task(api, task, id, status).await);
            }
            Some(Ok(IdempotencyOutcome::BodyMismatch)) => items.push_result(Err(idempotency_mismatch())),
            Some(Err(error)) => items.push_result(Err(error.into())),
        }
    }
    let stored = submit_pending(api, items.take_pending()).await;
    items.into_results(stored)
}

async fn open_records(api: &Api, requests: &[SubmitRequest]) -> Vec<store::Result<IdempotencyOutcome>> {
    let records = requests.iter().filter_map(|(task, once)| {
        let Idempotency { key, body } = (*once)?;
        Some(IdempotencyRecord { key, body, task_id: task.id, status: None })
    });
    let notes: Vec<IdempotencyRecord> = records.collect();
    if notes.is_empty() {
        return Vec::new();
    }
    api.dispatch.update_idempotency_records(notes).await
}

fn idempotency_mismatch() -> Problem {
    let detail = "this key came with another body within the last 24 hours";
    Problem::at("header:Idempotency-Key", Code::IdempotencyMismatch, detail)
}

async fn submit_pending(api: &Api, requests: Vec<SubmitRequest>) -> Vec<Result<SubmitOutcome, Problem>> {
    let submitted = api.dispatch.submit(requests.iter().map(|(task, _)| task.clone()).collect()).await;
    let (mut outcomes, mut records) = (Vec::new(), Vec::new());
    for ((task, once), submitted) in requests.into_iter().zip(submitted) {
        let outcome = match submitted {
            Ok(submitted) => to_outcome(api, task, submitted).await,
            Err(error) => Err(error.into()),
        };
        if let (Some(Idempotency { key, body }), Ok(outcome)) = (once, &outcome) {
            records.push(IdempotencyRecord {
                key,
                body,
                task_id: outcome.task.id,
                status: Some(outcome.status.as_u16()),
            });
        }
        outcomes.push(outcome);
    }
    if !records.is_empty() {
        for error in api.dispatch.update_idempotency_records(records).await.into_iter().filter_map(Result::err) {
            // The task is stored. A repetition finds the record open, and the task by its id.
            tracing::warn!(%error, "the outcome of an Idempotency-Key was not noted");
        }
    }
    outcomes
}

async fn to_outcome(api: &Api, task: NewTask, submitted: Submitted) -> Result<SubmitOutcome, Problem> {
    match submitted {
        Submitted::Created { state, at, run_at, expires_at } => {
            let task = submitted_task(task, state, at, run_at, expires_at);
            Ok(SubmitOutcome { status: StatusCode::CREATED, task, is_deleted: false })
        }
        Submitted::TooFar => Err(Problem::at("/run_at", Code::InvalidTime, "run_at must lie within 10 years of now")),
        Submitted::AlreadyStored => {
            let id = task.id;
            existing_task(api, task, id, StatusCode::CREATED).await
        }
        Submitted::Existing(holder) | Submitted::Replaced(holder) => {
            existing_task(api, task, holder, StatusCode::OK).await
        }
    }
}

/// The task that was there already; if it is gone, what the submit says of it.
async fn existing_task(api: &Api, task: NewTask, id: TaskId, status: StatusCode) -> Result<SubmitOutcome, Problem> {
    Ok(match views::tasks::task(api.store(), id).await? {
        Some(task) => SubmitOutcome { status, task, is_deleted: false },
        None => {
            let task = NewTask { id, ..task };
            SubmitOutcome {
                status,
                task: submitted_task(task, State::Ready, id.created_at(), None, None),
                is_deleted: true,
            }
        }
    })
}

/// A task as it stands right after its submit.
pub(super) fn submitted_task(
    task: NewTask,
    state: State,
    created_at: TimestampMs,
    run_at: Option<TimestampMs>,
    expires_at: Option<TimestampMs>,
) -> Task {
    Task {
        id: task.id,
        queue: task.queue,
        slot: task.slot,
        state,
        priority: task.priority,
        payload: task.payload,
        attributes: task.attributes,
        attempts: 0,
        max_attempts: task.max_attempts,
        acquired: 0,
        progress: None,
        result: None,
        errors: Vec::new(),
        created_at,
        run_at,
        expires_at,
        finished_at: None,
        worker: None,
        lease_until: None,
        cancel_requested: false,
    }
}

/// Parses the fields of a task. The caller reads the other fields of the object and rejects unknown ones.
pub(super) fn parse_task(object: &Fields<'_>, shards: Shards) -> Result<NewTask, Problem> {
    let queue = object.optional("queue").map_or(Ok(QueueName::default_queue()), |field| field.queue_name())?;
    let payload = match object.optional("payload") {
        Some(field) => field.document()?,
        None => RawValue::NULL.to_owned(),
    };
    let key = object.optional("key").map(|field| field.nonempty_text(limits::MAX_NAME_BYTES)).transpose()?;
    let priority = object.int_or_default("priority", limits::PRIORITY)?;
    let optional = |name, bound: ValueRange| object.optional(name).map(|field| field.int(bound)).transpose();
    object.mutually_exclusive("delay_ms", "run_at")?;
    let start = match object.optional("run_at") {
        Some(field) => StartTime::At(field.timestamp()?),
        None => StartTime::After(object.int_or_default("delay_ms", limits::DELAY_MS)?),
    };
    let expires_in_ms = optional("expires_in_ms", limits::EXPIRES_IN_MS)?;
    let max_attempts = object.int_or_default("max_attempts", limits::MAX_ATTEMPTS)?;
    let backoff = object.optional("backoff").map(|field| parse_backoff(&field)).transpose()?;
    let max_run_ms = object.int_or_default("max_run_ms", limits::MAX_RUN_MS)?;
    let retain_ms = optional("retain_ms", limits::RETAIN_MS)?;
    let attributes = parse_attributes(object, key)?;
    let dedupe = object.optional("dedupe").map(|field| parse_dedupe(&field)).transpose()?;
    let slot_key = match (&attributes.key, &dedupe) {
        (Some(key), _) => Some(key.clone()),
        (None, Some((key, _, _))) => Some(key.clone()),
        (None, None) => None,
    };
    let slot = match slot_key {
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
        queue,
        slot,
        priority: u8::try_from(priority).unwrap_or(u8::MAX),
        payload,
        attributes,
        start,
        expires_in_ms,
        max_attempts: u32::try_from(max_attempts).unwrap_or(u32::MAX),
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
    let modes = [("keep", DedupeMode::Keep), ("replace", DedupeMode::Replace), ("debounce", DedupeMode::Debounce)];
    let mode = object.optional("mode").map_or(Ok(DedupeMode::Keep), |field| field.one_of(&modes))?;
    let window = object.optional("window_ms").map(|field| field.int(limits::DEDUPE_WINDOW_MS)).transpose()?;
    object.deny_unknown()?;
    Ok((key, mode, window))
}

#[derive(Clone, Copy)]
enum BackoffName {
    Exponential,
    Fixed,
    List,
}

fn parse_backoff(field: &Field<'_>) -> Result<Backoff, Problem> {
    let object = field.object()?;
    let kinds = [("exponential", BackoffName::Exponential), ("fixed", BackoffName::Fixed), ("list", BackoffName::List)];
    let kind = object.optional("kind").map_or(Ok(BackoffName::Exponential), |field| field.one_of(&kinds))?;
    let jitters = [("full", Jitter::Full), ("none", Jitter::None)];
    let jitter = object.optional("jitter").map_or(Ok(Jitter::Full), |field| field.one_of(&jitters))?;
    let growth = match kind {
        BackoffName::Exponential => {
            let (min, max, default) = limits::BACKOFF_FACTOR;
            BackoffKind::Exponential {
                base_ms: object.int_or_default("base_ms", limits::BACKOFF_BASE_MS)?,
                factor: object.optional("factor").map_or(Ok(default), |field| field.float((min, max)))?,
                max_ms: object.int_or_default("max_ms", limits::BACKOFF_MAX_MS)?,
            }
        }
        BackoffName::Fixed => {
            BackoffKind::Fixed { base_ms: object.int_or_default("base_ms", limits::BACKOFF_BASE_MS)? }
        }
        BackoffName::List => {
            let field = object.required("delays_ms")?;
            let list = field.list(limits::MAX_BACKOFF_DELAYS, Code::TooLong)?;
            if list.is_empty() {
                return Err(field.invalid(Code::InvalidValue, "this must not be empty"));
            }
            let delays = list.fields().map(|delay| delay.int(limits::BACKOFF_MAX_MS));
            BackoffKind::List { delays_ms: delays.collect::<Result<_, _>>()? }
        }
    };
    object.deny_unknown()?;
    Ok(Backoff { kind: growth, jitter })
}
