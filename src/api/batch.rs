//! `/tasks/batch` and `/complete/batch`: many at once, each standing or falling alone, answered in order.

use axum::extract::{Extension, State as Shared};
use axum::http::{HeaderMap, StatusCode};
use axum::response::Response;
use serde::Serialize;

use super::claims::Claim;
use super::extract::{BatchBody, Peer};
use super::items::Items;
use super::object::{Field, List, Object};
use super::problem::{Code, Problem};
use super::reply::Shown;
use super::shapes::{ClaimedShape, SubmittedShape};
use super::submit::{Idempotency, Order, Outcome, idempotency_key};
use super::trace_context::TraceContext;
use super::{Api, claims, reply, submit};
use crate::domain::digest::Digest;
use crate::domain::id::TaskId;
use crate::domain::limits;
use crate::domain::slot::Shards;
use crate::store::ops::Ended;
use crate::store::ops::complete::Completion;

#[derive(Serialize)]
struct Submitted<'a> {
    results: Vec<SubmitResult<'a>>,
}

#[derive(Serialize)]
struct SubmitResult<'a> {
    status: u16,
    task: Option<SubmittedShape<'a>>,
    problem: Option<&'a Problem>,
}

/// The items of a batch's list, 1 to 1000.
pub(super) fn list<'o>(object: &'o Object<'_>, name: &'static str) -> Result<List<'o>, Problem> {
    let field = object.need(name)?;
    let list = field.list(limits::BATCH, Code::BatchTooLarge)?;
    if list.is_empty() {
        return Err(field.refuse(Code::InvalidValue, "this must not be empty"));
    }
    Ok(list)
}

pub(super) async fn submit(Shared(api): Shared<Api>, headers: HeaderMap, body: BatchBody) -> Result<Response, Problem> {
    if idempotency_key(&headers)?.is_some() {
        let detail = "give each item its own idempotency_key instead of one header for all";
        return Err(Problem::at("header:Idempotency-Key", Code::IdempotencyInBatch, detail));
    }
    let object = body.object()?;
    let items = list(&object, "tasks")?;
    object.finish()?;
    let context = TraceContext::of(&headers);
    let mut orders = Items::new();
    for (item, raw) in items.fields().zip(items.raw()) {
        let mut order = item_of(api.store().layout(), &item, raw);
        if let (Some(context), Ok((task, _))) = (&context, &mut order) {
            context.hang_on(&mut task.labels);
        }
        orders.add(order);
    }
    let open = orders.take_open();
    // What is refused when it is read names its place itself.
    let places: Vec<usize> = orders.places().collect();
    let stored = submit::store(&api, open).await.into_iter().zip(places);
    let stored = stored.map(|(outcome, place)| outcome.map_err(|problem| problem.of_item(&format!("/tasks/{place}"))));
    let outcomes: Vec<Result<Outcome, Problem>> = orders.outcomes(stored);
    let results = outcomes.iter().map(|outcome| match outcome {
        Ok(outcome) => SubmitResult { status: outcome.status.as_u16(), task: Some(outcome.shape()), problem: None },
        Err(problem) => SubmitResult { status: problem.status().as_u16(), task: None, problem: Some(problem) },
    });
    Ok(reply::ok(&Submitted { results: results.collect() }))
}

/// Reads one item.
pub(super) fn item_of(shards: Shards, item: &Field<'_>, raw: &str) -> Result<Order, Problem> {
    let object = item.object()?;
    let task = submit::read(&object, shards)?;
    let key = object.take("idempotency_key").map(|field| field.name(limits::NAME_BYTES)).transpose()?;
    object.finish()?;
    Ok((task, key.map(|key| Idempotency::new(&key, raw.as_bytes()))))
}

#[derive(Serialize)]
struct Completed<'a> {
    results: Vec<CompleteResult>,
    tasks: Option<Vec<ClaimedShape<'a>>>,
}

#[derive(Serialize)]
struct CompleteResult {
    id: Shown<TaskId>,
    status: u16,
    state: Option<&'static str>,
    problem: Option<Problem>,
}

/// Completions as they were asked for, and the claim that follows.
#[derive(Debug)]
pub(super) struct Completing {
    pub(super) ids: Vec<TaskId>,
    pub(super) completions: Items<Completion, Ended>,
    pub(super) next: Option<Claim>,
}

/// Reads a batch of completions.
pub(super) fn completing(object: &Object<'_>, peer: Peer, headers: &HeaderMap) -> Result<Completing, Problem> {
    let items = list(object, "completions")?;
    let next = object.take("claim").map(|field| field.object()).transpose()?;
    let next = next.map(|next| claims::read(&next, peer, headers)).transpose()?;
    object.finish()?;
    let (mut ids, mut completions) = (Vec::new(), Items::new());
    for item in items.fields() {
        let object = item.object()?;
        ids.push(claims::task_id(&object)?);
        completions.add(claims::completion(&object).and_then(|done| object.finish().map(|()| done)));
    }
    Ok(Completing { ids, completions, next })
}

pub(super) async fn complete(
    Shared(api): Shared<Api>,
    Extension(peer): Extension<Peer>,
    headers: HeaderMap,
    body: BatchBody,
) -> Result<Response, Problem> {
    let Completing { ids, mut completions, next } = completing(&body.object()?, peer, &headers)?;
    drop((headers, body));
    let open = completions.take_open();
    let proofs: Vec<u8> =
        open.iter().flat_map(|done| done.held.lease.map(|lease| *lease.as_bytes()).unwrap_or_default()).collect();
    let outcomes: Vec<Result<Ended, Problem>> = completions.outcomes(api.dispatch.complete(open).await);
    // One that is refused stands alone; the claim follows if any was accepted.
    let accepted = outcomes.iter().any(|outcome| matches!(outcome, Ok(Ended::Done { .. })));
    let repeated = outcomes.iter().any(|outcome| matches!(outcome, Ok(Ended::Done { repeated: true, .. })));
    let claim = next.map(|next| next.continuing("leases", Digest::of(&[&proofs]).as_bytes(), repeated));
    let delivery = match &claim {
        Some(claim) if accepted => Some(claim.follow(&api).await?),
        _ => None,
    };
    let results = ids.into_iter().zip(outcomes).map(|(id, outcome)| {
        let id = Shown(id);
        match outcome.and_then(super::reports::outcome) {
            Ok(state) => {
                CompleteResult { id, status: StatusCode::OK.as_u16(), state: Some(state.as_str()), problem: None }
            }
            Err(problem) => {
                CompleteResult { id, status: problem.status().as_u16(), state: None, problem: Some(problem) }
            }
        }
    });
    let tasks = delivery.as_ref().map(claims::shapes);
    let bytes = reply::encode(&Completed { results: results.collect(), tasks });
    let mut response = reply::handing_out(bytes, delivery.unwrap_or_default());
    if let Some(claim) = &claim {
        claim.mark(&mut response);
    }
    Ok(response)
}
