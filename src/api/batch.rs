//! `/tasks/batch` and `/complete/batch`: many items in one request. Each succeeds or fails alone; results are in order.

use axum::extract::{Extension, State as Shared};
use axum::http::{HeaderMap, StatusCode};
use axum::response::Response;
use serde::Serialize;

use super::body::{BatchBody, ReportBody};
use super::claims::Claim;
use super::json::adjusted::Adjusted;
use super::json::as_text::AsText;
use super::json::batch_results::BatchResults;
use super::json::fields::{Field, Fields};
use super::json::rewrite::canonical;
use super::json::shapes::{ClaimedTaskJson, SubmittedTaskJson};
use super::problem::{Code, Problem};
use super::response;
use super::state::Api;
use super::submit::idempotency_key;
use super::trace_context::TraceContext;
use super::{claims, submit};
use crate::dispatch::{IdempotencyKey, Submission, SubmitOutcome};
use crate::domain::digest::Digest;
use crate::domain::id::TaskId;
use crate::domain::slot::Shards;
use crate::http_server::{LongPoll, Peer};
use crate::store::ops::LeaseEnd;
use crate::store::ops::complete::Completion;
use crate::store::views::claims::CompletedLease;

#[derive(Serialize)]
struct BatchSubmitResponse<'a> {
    results: Vec<SubmitResult<'a>>,
}

#[derive(Serialize)]
struct SubmitResult<'a> {
    status: u16,
    task: Option<SubmittedTaskJson<'a>>,
    problem: Option<&'a Problem>,
}

pub(super) async fn submit(Shared(api): Shared<Api>, body: BatchBody) -> Result<Response, Problem> {
    if idempotency_key(body.headers())?.is_some() {
        let detail = "set idempotency_key in each item instead of the header";
        return Err(Problem::at("header:Idempotency-Key", Code::IdempotencyInBatch, detail));
    }
    let object = body.object_of_items()?;
    let items = object.batch_items("tasks")?;
    object.deny_unknown()?;
    let context = TraceContext::from_headers(body.headers());
    let mut requests = BatchResults::new();
    for (index, (item, raw)) in items.fields().zip(items.raw_json()).enumerate() {
        let checked = body.check_item(raw, &format!("/tasks/{index}"));
        let mut request = checked.and_then(|()| parse_item(api.store().layout(), &item, raw));
        if let (Some(context), Ok((task, _))) = (&context, &mut request) {
            context.attach_to(&mut task.attributes);
        }
        requests.push(request);
    }
    let pending = requests.take_pending();
    // An invalid item has its index in its pointers already.
    let indexes: Vec<usize> = requests.pending_indexes().collect();
    let stored = api.dispatch.submit(pending).await.into_iter().zip(indexes);
    let stored = stored.map(|(outcome, index)| {
        outcome.map_err(|error| Problem::from(error).in_batch_item(&format!("/tasks/{index}")))
    });
    let outcomes: Vec<Result<SubmitOutcome, Problem>> = requests.into_results(stored);
    let results = outcomes.iter().map(|outcome| match outcome {
        Ok(outcome) => SubmitResult {
            status: submit::status(outcome).as_u16(),
            task: Some(submit::submitted_task(outcome)),
            problem: None,
        },
        Err(problem) => SubmitResult { status: problem.status().as_u16(), task: None, problem: Some(problem) },
    });
    Ok(response::ok(&BatchSubmitResponse { results: results.collect() }))
}

/// Parses one task of a batch.
pub(super) fn parse_item(shards: Shards, item: &Field<'_>, raw: &str) -> Result<Submission, Problem> {
    let object = item.object()?;
    let task = submit::parse_task(&object, shards)?;
    let key = object.optional_name("idempotency_key")?;
    object.deny_unknown()?;
    let key = key.map(|key| IdempotencyKey::new(&key, &task.queue, &canonical(raw)));
    Ok((task, key))
}

#[derive(Serialize)]
struct BatchCompleteResponse<'a> {
    results: Vec<CompleteResult>,
    tasks: Option<Vec<ClaimedTaskJson<'a>>>,
    claim_problem: Option<Problem>,
}

#[derive(Serialize)]
struct CompleteResult {
    id: AsText<TaskId>,
    status: u16,
    state: Option<&'static str>,
    problem: Option<Problem>,
    adjusted: Adjusted,
}

/// A parsed batch of completions, the task and adjustments of each, and the claim that follows it.
#[derive(Debug)]
pub(super) struct CompletionBatch {
    pub(super) items: Vec<(TaskId, Adjusted)>,
    pub(super) completions: BatchResults<Completion, LeaseEnd>,
    pub(super) next: Option<Claim>,
}

/// Parses a batch of completions.
pub(super) fn parse_completions(
    object: &Fields<'_>,
    adjusted: &Adjusted,
    peer: Peer,
    headers: &HeaderMap,
) -> Result<CompletionBatch, Problem> {
    let items = object.batch_items("completions")?;
    let next = object.optional("claim").map(|field| field.object()).transpose()?;
    let next = next.map(|next| claims::parse_claim(&next, peer, headers)).transpose()?;
    object.deny_unknown()?;
    let (mut parsed, mut completions) = (Vec::new(), BatchResults::new());
    for item in items.fields() {
        let (object, mut adjusted) = (item.object()?, adjusted.clone());
        let id = claims::parse_task_id(&object)?;
        let completion = claims::parse_completion(&object, &mut adjusted);
        completions.push(completion.and_then(|done| object.deny_unknown().map(|()| done)));
        parsed.push((id, adjusted));
    }
    Ok(CompletionBatch { items: parsed, completions, next })
}

pub(super) async fn complete(
    Shared(api): Shared<Api>,
    Extension(peer): Extension<Peer>,
    Extension(long_poll): Extension<LongPoll>,
    body: ReportBody,
) -> Result<Response, Problem> {
    let CompletionBatch { items, mut completions, next } =
        parse_completions(&body.object()?, &body.adjusted(), peer, body.headers())?;
    drop(body);
    let pending = completions.take_pending();
    let token_bytes: Vec<u8> = pending
        .iter()
        .flat_map(|done| done.lease_ref.lease.map(|lease| *lease.as_bytes()).unwrap_or_default())
        .collect();
    let batch = Digest::of(&[&token_bytes]);
    let last = pending.last().map(|done| CompletedLease { task: done.lease_ref.id, batch: Some(batch) });
    let next_claim = next.as_ref().zip(last.as_ref()).and_then(|(next, last)| next.behind(last));
    let (ended, next_tasks) = api.dispatch.complete(pending, next_claim).await;
    let outcomes: Vec<Result<LeaseEnd, Problem>> = completions.into_results(ended);
    // The claim runs if at least one completion was accepted.
    let accepted = outcomes.iter().any(|outcome| matches!(outcome, Ok(LeaseEnd::Done { .. })));
    let repeated = outcomes.iter().any(|outcome| matches!(outcome, Ok(LeaseEnd::Done { repeated: true, .. })));
    let claim =
        next.zip(last).map(|(next, last)| next.with_default_claim_id("leases", batch.as_bytes(), last, repeated));
    let (delivery, claim_problem) = match &claim {
        Some(claim) if accepted => claim.run_after_completion(&api, &long_poll, next_tasks).await,
        _ => (None, None),
    };
    let results = items.into_iter().zip(outcomes).enumerate().map(|(index, ((id, adjusted), outcome))| {
        let id = AsText(id);
        let dropped = matches!(outcome, Ok(LeaseEnd::Done { dropped: true, .. }));
        let adjusted = adjusted.with_dropped(dropped, || format!("/completions/{index}/result"));
        match outcome.and_then(super::reports::returned) {
            Ok((state, _)) => {
                let status = StatusCode::OK.as_u16();
                CompleteResult { id, status, state: Some(state.as_str()), problem: None, adjusted }
            }
            Err(problem) => {
                let status = problem.status().as_u16();
                CompleteResult { id, status, state: None, problem: Some(problem), adjusted }
            }
        }
    });
    let tasks = delivery.as_ref().map(claims::claimed_tasks);
    let bytes = response::encode(&BatchCompleteResponse { results: results.collect(), tasks, claim_problem });
    let mut response = response::delivery_response(bytes, delivery.unwrap_or_default());
    if let Some(claim) = &claim {
        claim.set_headers(&mut response);
    }
    Ok(response)
}
