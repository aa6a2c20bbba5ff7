//! `POST /tasks`: a task is submitted.

use axum::extract::State as Shared;
use axum::http::{HeaderMap, HeaderValue, StatusCode, header};
use axum::response::Response;
use serde_json::value::RawValue;
use uuid::Uuid;

use super::extract::OneBody;
use super::items::Items;
use super::object::{Field, Object};
use super::problem::{Code, Problem};
use super::shapes::{SubmittedShape, TaskShape};
use super::trace_context::TraceContext;
use super::{Api, reply};
use crate::domain::digest::Digest;
use crate::domain::id::TaskId;
use crate::domain::limits::{self, Bound};
use crate::domain::queue::QueueName;
use crate::domain::retry::{Backoff, Growth, Jitter};
use crate::domain::slot::{Shards, Slot};
use crate::domain::state::State;
use crate::domain::task::{Dedupe, DedupeMode, Labels, NewTask, Start, Task};
use crate::domain::time::Millis;
use crate::store;
use crate::store::ops::remember::{Note, Remembered};
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
pub(super) struct Outcome {
    pub(super) status: StatusCode,
    task: Task,
    /// The task is gone: only what the submit said is known.
    gone: bool,
}

impl Outcome {
    pub(super) fn shape(&self) -> SubmittedShape<'_> {
        let mut task = TaskShape::from(&self.task);
        if self.gone {
            task.state = None;
        }
        SubmittedShape { task, deduplicated: self.status == StatusCode::OK }
    }
}

pub(super) async fn submit(Shared(api): Shared<Api>, headers: HeaderMap, body: OneBody) -> Result<Response, Problem> {
    let object = body.object()?;
    let mut task = read(&object, api.store().layout())?;
    object.finish()?;
    if let Some(context) = TraceContext::of(&headers) {
        context.hang_on(&mut task.labels);
    }
    let idempotency = idempotency_key(&headers)?.map(|key| Idempotency::new(&key, body.bytes()));
    let outcome = store(&api, vec![(task, idempotency)]).await.pop();
    let outcome = outcome.ok_or_else(|| Problem::new(Code::Internal, "a submit had no outcome"))??;
    let mut response = reply::json(outcome.status, &outcome.shape());
    if outcome.status == StatusCode::CREATED
        && let Ok(location) = HeaderValue::from_str(&format!("/tasks/{}", outcome.task.id))
    {
        response.headers_mut().insert(header::LOCATION, location);
    }
    Ok(response)
}

/// The header, bare or as a quoted string.
pub(super) fn idempotency_key(headers: &HeaderMap) -> Result<Option<String>, Problem> {
    let refuse = |detail: &str| Err(Problem::at("header:Idempotency-Key", Code::InvalidHeader, detail));
    let Some(value) = headers.get("idempotency-key") else { return Ok(None) };
    let Ok(text) = value.to_str() else { return refuse("the key must be visible ASCII") };
    let text = text.trim();
    let bare = match text.strip_prefix('"') {
        None => text,
        Some(rest) => rest.strip_suffix('"').unwrap_or_default(),
    };
    // A header that can be read as text may hold tabs.
    if bare.contains('\t') {
        return refuse("the key must be visible ASCII");
    }
    if bare.is_empty() || bare.len() > limits::NAME_BYTES {
        return refuse("the key must have 1 to 256 bytes");
    }
    Ok(Some(bare.to_owned()))
}

/// A task to store, and the Idempotency-Key for which it is stored once.
pub(super) type Order = (NewTask, Option<Idempotency>);

/// Stores tasks, in their order: first the records of the keys, then the tasks under the ids that the records name,
/// then the outcomes into the records.
pub(super) async fn store(api: &Api, orders: Vec<Order>) -> Vec<Result<Outcome, Problem>> {
    let mut opened = open(api, &orders).await.into_iter();
    let mut items = Items::new();
    for (mut task, once) in orders {
        match once.and_then(|_| opened.next()) {
            None => items.add(Ok((task, once))),
            Some(Ok(Remembered::Open(id))) => {
                task.id = id;
                task.slot = id.slot();
                items.add(Ok((task, once)));
            }
            Some(Ok(Remembered::Closed(id, status))) => {
                let status = StatusCode::from_u16(status).unwrap_or(StatusCode::OK);
                items.settle(found(api, task, id, status).await);
            }
            Some(Ok(Remembered::Mismatch)) => items.settle(Err(mismatch())),
            Some(Err(error)) => items.settle(Err(error.into())),
        }
    }
    let stored = store_new(api, items.take_open()).await;
    items.outcomes(stored)
}

async fn open(api: &Api, orders: &[Order]) -> Vec<store::Result<Remembered>> {
    let notes = orders.iter().filter_map(|(task, once)| {
        let Idempotency { key, body } = (*once)?;
        Some(Note { key, body, id: task.id, status: None })
    });
    let notes: Vec<Note> = notes.collect();
    if notes.is_empty() {
        return Vec::new();
    }
    api.dispatch.remember(notes).await
}

fn mismatch() -> Problem {
    let detail = "this key came with another body within the last 24 hours";
    Problem::at("header:Idempotency-Key", Code::IdempotencyMismatch, detail)
}

async fn store_new(api: &Api, orders: Vec<Order>) -> Vec<Result<Outcome, Problem>> {
    let submitted = api.dispatch.submit(orders.iter().map(|(task, _)| task.clone()).collect()).await;
    let (mut outcomes, mut notes) = (Vec::new(), Vec::new());
    for ((task, once), submitted) in orders.into_iter().zip(submitted) {
        let outcome = match submitted {
            Ok(submitted) => outcome(api, task, submitted).await,
            Err(error) => Err(error.into()),
        };
        if let (Some(Idempotency { key, body }), Ok(outcome)) = (once, &outcome) {
            notes.push(Note { key, body, id: outcome.task.id, status: Some(outcome.status.as_u16()) });
        }
        outcomes.push(outcome);
    }
    if !notes.is_empty() {
        for error in api.dispatch.remember(notes).await.into_iter().filter_map(Result::err) {
            // The task is stored. A repetition finds the record open, and the task by its id.
            tracing::warn!(%error, "the outcome of an Idempotency-Key was not noted");
        }
    }
    outcomes
}

async fn outcome(api: &Api, task: NewTask, submitted: Submitted) -> Result<Outcome, Problem> {
    match submitted {
        Submitted::Created { state, at, run_at, expires_at } => {
            let task = shown(task, state, at, run_at, expires_at);
            Ok(Outcome { status: StatusCode::CREATED, task, gone: false })
        }
        Submitted::TooFar => Err(Problem::at("/run_at", Code::InvalidTime, "run_at must lie within 10 years of now")),
        Submitted::Known => {
            let id = task.id;
            found(api, task, id, StatusCode::CREATED).await
        }
        Submitted::Kept(holder) | Submitted::Replaced(holder) => found(api, task, holder, StatusCode::OK).await,
    }
}

/// The task that was there already; if it is gone, what the submit says of it.
async fn found(api: &Api, task: NewTask, id: TaskId, status: StatusCode) -> Result<Outcome, Problem> {
    Ok(match views::tasks::task(api.store(), id).await? {
        Some(task) => Outcome { status, task, gone: false },
        None => {
            let task = NewTask { id, ..task };
            Outcome { status, task: shown(task, State::Ready, id.made_at(), None, None), gone: true }
        }
    })
}

/// A task as it stands right after its submit.
pub(super) fn shown(
    task: NewTask,
    state: State,
    at: Millis,
    run_at: Option<Millis>,
    expires_at: Option<Millis>,
) -> Task {
    Task {
        id: task.id,
        queue: task.queue,
        slot: task.slot,
        state,
        priority: task.priority,
        payload: task.payload,
        labels: task.labels,
        attempts: 0,
        max_attempts: task.max_attempts,
        acquired: 0,
        progress: None,
        result: None,
        errors: Vec::new(),
        created_at: at,
        run_at,
        expires_at,
        finished_at: None,
        worker: None,
        lease_until: None,
        cancel_requested: false,
    }
}

/// Reads a submit's fields; the caller goes on to what else its object may have.
pub(super) fn read(object: &Object<'_>, shards: Shards) -> Result<NewTask, Problem> {
    let queue = object.take("queue").map_or(Ok(QueueName::default_queue()), |field| field.queue())?;
    let payload = match object.take("payload") {
        Some(field) => field.document()?,
        None => RawValue::NULL.to_owned(),
    };
    let key = object.take("key").map(|field| field.name(limits::NAME_BYTES)).transpose()?;
    let priority = object.int_or_default("priority", limits::PRIORITY)?;
    let optional = |name, bound: Bound| object.take(name).map(|field| field.int(bound)).transpose();
    object.exclude("delay_ms", "run_at")?;
    let start = match object.take("run_at") {
        Some(field) => Start::At(field.time()?),
        None => Start::In(object.int_or_default("delay_ms", limits::DELAY_MS)?),
    };
    let expires_in_ms = optional("expires_in_ms", limits::EXPIRES_IN_MS)?;
    let max_attempts = object.int_or_default("max_attempts", limits::MAX_ATTEMPTS)?;
    let backoff = object.take("backoff").map(|field| backoff(&field)).transpose()?;
    let max_run_ms = object.int_or_default("max_run_ms", limits::MAX_RUN_MS)?;
    let retain_ms = optional("retain_ms", limits::RETAIN_MS)?;
    let labels = labels(object, key)?;
    let dedupe = object.take("dedupe").map(|field| dedupe(&field)).transpose()?;
    let place = match (&labels.key, &dedupe) {
        (Some(key), _) => Some(key.clone()),
        (None, Some((key, _, _))) => Some(key.clone()),
        (None, None) => None,
    };
    let slot = match place {
        Some(key) => Slot::of_key(key.as_bytes()),
        None => shards.plain_slot(queue.as_str(), rand::random()),
    };
    let dedupe = dedupe.map(|(key, mode, window_ms)| {
        let own = labels.key.as_deref();
        let digest = Digest::of(&[
            queue.as_str().as_bytes(),
            if own.is_some() { b"k" } else { b"" },
            own.unwrap_or_default().as_bytes(),
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
        labels,
        start,
        expires_in_ms,
        max_attempts: u32::try_from(max_attempts).unwrap_or(u32::MAX),
        backoff,
        max_run_ms,
        retain_ms,
        dedupe,
    })
}

fn labels(object: &Object<'_>, key: Option<String>) -> Result<Labels, Problem> {
    let mut bytes = 0;
    let mut over = |field: &Field<'_>, length: usize| {
        bytes += length;
        if bytes > limits::LABEL_BYTES {
            return Err(field.refuse(Code::TooLong, "tags and headers take at most 16 KiB together"));
        }
        Ok(())
    };
    let mut tags = Vec::new();
    if let Some(field) = object.take("tags") {
        for tag in field.list(limits::TAGS, Code::TooLong)?.fields() {
            tags.push(tag.name(limits::TAG_BYTES)?);
        }
        over(&field, tags.iter().map(String::len).sum())?;
    }
    let mut headers = std::collections::BTreeMap::new();
    if let Some(field) = object.take("headers") {
        headers = field.strings(limits::HEADERS)?;
        over(&field, headers.iter().map(|(name, value)| name.len() + value.len()).sum())?;
    }
    Ok(Labels { key, tags, headers })
}

fn dedupe(field: &Field<'_>) -> Result<(String, DedupeMode, Option<i64>), Problem> {
    let object = field.object()?;
    let key = object.need("key")?.name(limits::NAME_BYTES)?;
    let modes = [("keep", DedupeMode::Keep), ("replace", DedupeMode::Replace), ("debounce", DedupeMode::Debounce)];
    let mode = object.take("mode").map_or(Ok(DedupeMode::Keep), |field| field.one_of(&modes))?;
    let window = object.take("window_ms").map(|field| field.int(limits::WINDOW_MS)).transpose()?;
    object.finish()?;
    Ok((key, mode, window))
}

#[derive(Clone, Copy)]
enum Kind {
    Exponential,
    Fixed,
    List,
}

fn backoff(field: &Field<'_>) -> Result<Backoff, Problem> {
    let object = field.object()?;
    let kinds = [("exponential", Kind::Exponential), ("fixed", Kind::Fixed), ("list", Kind::List)];
    let kind = object.take("kind").map_or(Ok(Kind::Exponential), |field| field.one_of(&kinds))?;
    let jitters = [("full", Jitter::Full), ("none", Jitter::None)];
    let jitter = object.take("jitter").map_or(Ok(Jitter::Full), |field| field.one_of(&jitters))?;
    let growth = match kind {
        Kind::Exponential => {
            let (min, max, default) = limits::BACKOFF_FACTOR;
            Growth::Exponential {
                base_ms: object.int_or_default("base_ms", limits::BACKOFF_BASE_MS)?,
                factor: object.take("factor").map_or(Ok(default), |field| field.float((min, max)))?,
                max_ms: object.int_or_default("max_ms", limits::BACKOFF_MAX_MS)?,
            }
        }
        Kind::Fixed => Growth::Fixed { base_ms: object.int_or_default("base_ms", limits::BACKOFF_BASE_MS)? },
        Kind::List => {
            let field = object.need("delays_ms")?;
            let list = field.list(limits::BACKOFF_LIST, Code::TooLong)?;
            if list.is_empty() {
                return Err(field.refuse(Code::InvalidValue, "this must not be empty"));
            }
            let delays = list.fields().map(|delay| delay.int(limits::BACKOFF_MAX_MS));
            Growth::List { delays_ms: delays.collect::<Result<_, _>>()? }
        }
    };
    object.finish()?;
    Ok(Backoff { growth, jitter })
}
