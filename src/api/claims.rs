//! `/claim` and `/complete`: workers claim tasks and complete them, and may claim the next in the same request.

use std::net::IpAddr;
use std::time::Duration;

use axum::extract::{Extension, State as Shared};
use axum::http::{HeaderMap, HeaderValue};
use axum::response::Response;
use serde::Serialize;
use tokio::task::yield_now;

use super::body::{ReportBody, SingleBody};
use super::extract::parse_wait;
use super::json::adjusted::Adjusted;
use super::json::as_text::AsText;
use super::json::fields::Fields;
use super::json::shapes::ClaimedTaskJson;
use super::problem::{Code, Problem};
use super::request_metrics::mark_long_poll;
use super::response;
use super::state::Api;
use crate::dispatch::{ClaimRequest, Delivery, NextClaim, NextTasks};
use crate::domain::claim_id::ClaimId;
use crate::domain::id::TaskId;
use crate::domain::limits;
use crate::domain::queue::QueueName;
use crate::domain::token::Token;
use crate::http_server::{LongPoll, Peer};
use crate::store::ops::complete::Completion;
use crate::store::ops::{LeaseEnd, LeaseRef};
use crate::store::views::claims::CompletedLease;

/// A parsed claim.
#[derive(Debug)]
pub(super) struct Claim {
    pub(super) request: ClaimRequest,
    pub(super) wait: Duration,
    address: IpAddr,
    /// Number of tasks that the worker runs at once.
    concurrency: u32,
    /// The value of `Preference-Applied`.
    preference_applied: Option<HeaderValue>,
    /// Whether an earlier claim may have had the same id.
    may_be_repeat: bool,
    /// The completion that identifies a claim without a `claim_id`.
    completed: Option<CompletedLease>,
}

#[derive(Serialize)]
struct ClaimResponse<'a> {
    tasks: Vec<ClaimedTaskJson<'a>>,
}

#[derive(Serialize)]
struct CompleteResponse<'a> {
    id: AsText<TaskId>,
    state: &'a str,
    tasks: Option<Vec<ClaimedTaskJson<'a>>>,
    claim_problem: Option<Problem>,
    adjusted: Adjusted,
}

pub(super) async fn claim(
    Shared(api): Shared<Api>,
    Extension(peer): Extension<Peer>,
    Extension(long_poll): Extension<LongPoll>,
    body: SingleBody,
) -> Result<Response, Problem> {
    let claim = parse_claim(&body.object()?, peer, body.headers())?;
    // A waiting claim must not hold its request in memory: the head alone takes 8 KiB.
    drop(body);
    let delivery = claim.run(&api, &long_poll, NextTasks::default()).await?;
    let bytes = response::encode(&ClaimResponse { tasks: claimed_tasks(&delivery) });
    let mut response = response::delivery_response(bytes, delivery);
    claim.set_headers(&mut response);
    Ok(response)
}

pub(super) async fn complete(
    Shared(api): Shared<Api>,
    Extension(peer): Extension<Peer>,
    Extension(long_poll): Extension<LongPoll>,
    body: ReportBody,
) -> Result<Response, Problem> {
    let (completion, adjusted, next) =
        parse_completion_and_claim(&body.object()?, body.adjusted(), peer, body.headers())?;
    drop(body);
    let lease_ref = completion.lease_ref.clone();
    let completed = CompletedLease { task: lease_ref.id, batch: None };
    let next_claim = next.as_ref().and_then(|next| next.behind(&completed));
    let (mut ended, next_tasks) = api.dispatch.complete(vec![completion], next_claim).await;
    let (state, repeated, dropped) =
        match ended.pop().ok_or_else(|| Problem::new(Code::Internal, "the completion has no result"))?? {
            LeaseEnd::Done { state, repeated, dropped, .. } => (state, repeated, dropped),
            LeaseEnd::LeaseLost(state) => return Err(Problem::lease_lost(state)),
            LeaseEnd::Unknown => return Err(Problem::task_not_found()),
        };
    let token_bytes = lease_ref.lease.map(|lease| *lease.as_bytes()).unwrap_or_default();
    let claim = next.map(|next| next.with_default_claim_id("lease", &token_bytes, completed, repeated));
    let (delivery, claim_problem) = match &claim {
        Some(claim) => claim.run_after_completion(&api, &long_poll, next_tasks).await,
        None => (None, None),
    };
    let tasks = delivery.as_ref().map(claimed_tasks);
    let (id, state) = (AsText(lease_ref.id), state.as_str());
    let adjusted = adjusted.with_dropped(dropped, || "/result".to_owned());
    let bytes = response::encode(&CompleteResponse { id, state, tasks, claim_problem, adjusted });
    let mut response = response::delivery_response(bytes, delivery.unwrap_or_default());
    if let Some(claim) = &claim {
        claim.set_headers(&mut response);
    }
    Ok(response)
}

/// Returns the JSON forms of the delivered tasks.
pub(super) fn claimed_tasks(delivery: &Delivery) -> Vec<ClaimedTaskJson<'_>> {
    delivery.tasks().iter().map(ClaimedTaskJson::from).collect()
}

/// Parses the task id of a report.
pub(super) fn parse_task_id(object: &Fields<'_>) -> Result<TaskId, Problem> {
    let field = object.required("id")?;
    let text = field.text(limits::MAX_NAME_BYTES)?;
    TaskId::parse(&text).ok_or_else(|| field.invalid(Code::InvalidId, "id must be the task id returned by POST /claim"))
}

/// Parses the task id and the lease token of a report.
pub(super) fn parse_lease_ref(object: &Fields<'_>) -> Result<LeaseRef, Problem> {
    let id = parse_task_id(object)?;
    let lease = object.required("lease")?.text(limits::MAX_NAME_BYTES)?;
    Ok(LeaseRef { id, lease: Token::parse(&lease) })
}

/// Parses a completion.
pub(super) fn parse_completion(object: &Fields<'_>, adjusted: &mut Adjusted) -> Result<Completion, Problem> {
    let lease_ref = parse_lease_ref(object)?;
    let result = object.cut_document("result", adjusted);
    Ok(Completion { lease_ref, result: result.unwrap_or_else(|| serde_json::value::RawValue::NULL.to_owned()) })
}

/// Parses a completion and the claim that follows it.
pub(super) fn parse_completion_and_claim(
    object: &Fields<'_>,
    mut adjusted: Adjusted,
    peer: Peer,
    headers: &HeaderMap,
) -> Result<(Completion, Adjusted, Option<Claim>), Problem> {
    let completion = parse_completion(object, &mut adjusted)?;
    let next = object.optional("claim").map(|field| field.object()).transpose()?;
    let next = next.map(|next| parse_claim(&next, peer, headers)).transpose()?;
    object.deny_unknown()?;
    Ok((completion, adjusted, next))
}

/// Parses a claim.
pub(super) fn parse_claim(object: &Fields<'_>, peer: Peer, headers: &HeaderMap) -> Result<Claim, Problem> {
    let queues = match object.optional("queues") {
        None => vec![QueueName::default_queue()],
        Some(field) => {
            let list = field.list(limits::MAX_CLAIM_QUEUES, Code::TooLong)?;
            if list.is_empty() {
                return Err(field.must(Code::InvalidValue, "must not be empty"));
            }
            let mut queues = Vec::new();
            for queue in list.fields() {
                let queue = queue.queue_name()?;
                if !queues.contains(&queue) {
                    queues.push(queue);
                }
            }
            queues
        }
    };
    let worker = match object.optional("worker") {
        Some(field) => field.nonempty_text(limits::MAX_NAME_BYTES)?,
        None => format!("anonymous@{}", peer.0.ip()),
    };
    let concurrency = object.int_or_default("concurrency", limits::CONCURRENCY)?;
    let max = object.int_or_default("max", limits::CLAIM_TASKS)?;
    let lease_ms = object.int_or_default("lease_ms", limits::LEASE_MS)?;
    let wait_ms = object.optional_int("wait_ms", limits::WAIT_MS)?;
    let claim_id = object.optional_name("claim_id")?;
    object.deny_unknown()?;
    let (wait, preference) = parse_wait(wait_ms, headers)?;
    let (may_be_repeat, completed) = (claim_id.is_some(), None);
    let claim_id = claim_id.map(|id| ClaimId::of_client(&worker, &id, &queues));
    let request = ClaimRequest { queues, max: usize::try_from(max).unwrap_or(1), lease_ms, worker, claim_id };
    let concurrency = u32::try_from(concurrency).unwrap_or(1);
    let address = peer.0.ip();
    Ok(Claim { request, wait, address, concurrency, preference_applied: preference, may_be_repeat, completed })
}

impl Claim {
    /// Identifies a claim without a `claim_id` by the completions before it. So a repetition of these completions, and
    /// no other request, gets the same tasks.
    pub(super) fn with_default_claim_id(
        mut self,
        kind: &str,
        id: &[u8],
        completed: CompletedLease,
        repeated: bool,
    ) -> Self {
        if self.request.claim_id.is_none() {
            self.request.claim_id = Some(ClaimId::of_leases(kind, id));
            self.may_be_repeat = repeated;
            self.completed = Some(completed);
        }
        self
    }

    /// Returns the claim for the call that completes the task. One with a `claim_id` first looks for the tasks leased under
    /// it, so it follows in a call of its own.
    pub(super) fn behind(&self, completed: &CompletedLease) -> Option<NextClaim> {
        let next =
            || NextClaim { request: self.request.clone(), is_long_poll: !self.wait.is_zero(), batch: completed.batch };
        self.request.claim_id.is_none().then(next)
    }

    /// Runs the claim. `next` is what the call of the completion before it has claimed.
    async fn run(&self, api: &Api, long_poll: &LongPoll, next: NextTasks) -> Result<Delivery, Problem> {
        if !self.wait.is_zero() {
            long_poll.begin();
            // A client that has disconnected during the call of the completion ends the request here.
            if !next.is_empty() {
                yield_now().await;
            }
        }
        let request = self.request.clone();
        api.dispatch.record_claim(&request, self.address, self.concurrency);
        let delivery = match self.may_be_repeat {
            true => api.dispatch.claim_or_resume(request, self.wait, next, self.completed.as_ref()).await?,
            false => api.dispatch.claim_next(request, self.wait, next).await?,
        };
        Ok(delivery)
    }

    /// Runs the claim of a request whose completions are committed, so that its failure is no failure of the request.
    /// Returns the tasks, and the problem of a claim that failed.
    pub(super) async fn run_after_completion(
        &self,
        api: &Api,
        long_poll: &LongPoll,
        next: NextTasks,
    ) -> (Option<Delivery>, Option<Problem>) {
        match self.run(api, long_poll, next).await {
            Ok(delivery) => (Some(delivery), None),
            Err(problem) => (Some(Delivery::default()), Some(problem.in_batch_item("/claim"))),
        }
    }

    /// Sets `Preference-Applied`, and marks a long poll for the metrics.
    pub(super) fn set_headers(&self, response: &mut Response) {
        if !self.wait.is_zero() {
            mark_long_poll(response);
        }
        if let Some(applied) = &self.preference_applied {
            response.headers_mut().insert("preference-applied", applied.clone());
        }
    }
}
