//! `/claim` and `/complete`: workers take tasks and finish them, and take the next in the same round trip.

use std::net::IpAddr;
use std::time::Duration;

use axum::extract::{Extension, State as Shared};
use axum::http::{HeaderMap, HeaderValue};
use axum::response::Response;
use serde::Serialize;

use super::extract::{OneBody, Peer, wait};
use super::object::Object;
use super::problem::{Code, Problem};
use super::reply::Shown;
use super::shapes::ClaimedShape;
use super::{Api, metrics, reply};
use crate::dispatch::{Delivery, Dispatch, Request};
use crate::domain::id::TaskId;
use crate::domain::limits;
use crate::domain::queue::QueueName;
use crate::domain::token::Token;
use crate::store::ops::complete::Completion;
use crate::store::ops::{Ended, Held};

/// A claim as it was asked for.
#[derive(Debug)]
pub(super) struct Claim {
    pub(super) request: Request,
    pub(super) wait: Duration,
    /// From where, and for how many tasks at once.
    worker: (IpAddr, u32),
    /// For the header that says so.
    preference: Option<HeaderValue>,
    /// Whether a claim under the same id may have been answered before.
    again: bool,
}

#[derive(Serialize)]
struct Tasks<'a> {
    tasks: Vec<ClaimedShape<'a>>,
}

#[derive(Serialize)]
struct Completed<'a> {
    id: Shown<TaskId>,
    state: &'a str,
    tasks: Option<Vec<ClaimedShape<'a>>>,
}

pub(super) async fn claim(
    Shared(api): Shared<Api>,
    Extension(peer): Extension<Peer>,
    headers: HeaderMap,
    body: OneBody,
) -> Result<Response, Problem> {
    let claim = read(&body.object()?, peer, &headers)?;
    // Many wait, and long: they hold nothing of what they sent, whose head alone takes 8 KiB.
    drop((headers, body));
    let delivery = claim.run(&api).await?;
    let bytes = reply::encode(&Tasks { tasks: shapes(&delivery) });
    let mut response = reply::handing_out(bytes, delivery);
    claim.mark(&mut response);
    Ok(response)
}

pub(super) async fn complete(
    Shared(api): Shared<Api>,
    Extension(peer): Extension<Peer>,
    headers: HeaderMap,
    body: OneBody,
) -> Result<Response, Problem> {
    let (completion, next) = completing(&body.object()?, peer, &headers)?;
    drop((headers, body));
    let held = completion.held.clone();
    let ended = api.dispatch.complete(vec![completion]).await.pop();
    let (state, repeated) = match ended.ok_or_else(|| Problem::new(Code::Internal, "a completion had no outcome"))?? {
        Ended::Done { state, repeated, .. } => (state, repeated),
        Ended::Lost(state) => return Err(Problem::lease_lost(state)),
        Ended::Unknown => return Err(Problem::no_task()),
    };
    let proof = held.lease.map(|lease| *lease.as_bytes()).unwrap_or_default();
    let claim = next.map(|next| next.continuing("lease", &proof, repeated));
    let delivery = match &claim {
        Some(claim) => Some(claim.follow(&api).await?),
        None => None,
    };
    let tasks = delivery.as_ref().map(shapes);
    let bytes = reply::encode(&Completed { id: Shown(held.id), state: state.as_str(), tasks });
    let mut response = reply::handing_out(bytes, delivery.unwrap_or_default());
    if let Some(claim) = &claim {
        claim.mark(&mut response);
    }
    Ok(response)
}

/// The tasks of a delivery as JSON shows them.
pub(super) fn shapes(delivery: &Delivery) -> Vec<ClaimedShape<'_>> {
    delivery.tasks().iter().map(ClaimedShape::from).collect()
}

/// The id of the task that a report is about.
pub(super) fn task_id(object: &Object<'_>) -> Result<TaskId, Problem> {
    let field = object.need("id")?;
    let text = field.text(limits::NAME_BYTES)?;
    TaskId::parse(&text).ok_or_else(|| field.refuse(Code::InvalidId, "an id is a UUID as a claim answers it"))
}

/// The id and token of a report.
pub(super) fn held(object: &Object<'_>) -> Result<Held, Problem> {
    let id = task_id(object)?;
    let lease = object.need("lease")?.text(limits::NAME_BYTES)?;
    Ok(Held { id, lease: Token::parse(&lease) })
}

/// The fields of a completion.
pub(super) fn completion(object: &Object<'_>) -> Result<Completion, Problem> {
    let held = held(object)?;
    let result = match object.take("result") {
        Some(field) => field.document()?,
        None => serde_json::value::RawValue::NULL.to_owned(),
    };
    Ok(Completion { held, result })
}

/// Reads a completion, and the claim that follows.
pub(super) fn completing(
    object: &Object<'_>,
    peer: Peer,
    headers: &HeaderMap,
) -> Result<(Completion, Option<Claim>), Problem> {
    let completion = completion(object)?;
    let next = object.take("claim").map(|field| field.object()).transpose()?;
    let next = next.map(|next| read(&next, peer, headers)).transpose()?;
    object.finish()?;
    Ok((completion, next))
}

/// Reads a claim.
pub(super) fn read(object: &Object<'_>, peer: Peer, headers: &HeaderMap) -> Result<Claim, Problem> {
    let queues = match object.take("queues") {
        None => vec![QueueName::default_queue()],
        Some(field) => {
            let list = field.list(limits::CLAIM_QUEUES, Code::TooLong)?;
            if list.is_empty() {
                return Err(field.refuse(Code::InvalidValue, "this must not be empty"));
            }
            let mut queues = Vec::new();
            for queue in list.fields() {
                let queue = queue.queue()?;
                if !queues.contains(&queue) {
                    queues.push(queue);
                }
            }
            queues
        }
    };
    let worker = match object.take("worker") {
        Some(field) => field.name(limits::NAME_BYTES)?,
        None => format!("anonymous@{}", peer.0.ip()),
    };
    let concurrency = object.int_or_default("concurrency", limits::CONCURRENCY)?;
    let max = object.int_or_default("max", limits::CLAIM_MAX)?;
    let lease_ms = object.int_or_default("lease_ms", limits::LEASE_MS)?;
    let asked = object.take("wait_ms").map(|field| field.int(limits::WAIT_MS)).transpose()?;
    let claim_id = object.take("claim_id").map(|field| field.name(limits::NAME_BYTES)).transpose()?;
    object.finish()?;
    let (wait, preference) = wait(asked, headers)?;
    let claim = claim_id.as_ref().map(|id| Dispatch::claim_digest("id", id.as_bytes()));
    let request = Request { queues, max: usize::try_from(max).unwrap_or(1), lease_ms, worker, claim };
    let worker = (peer.0.ip(), u32::try_from(concurrency).unwrap_or(1));
    Ok(Claim { request, wait, worker, preference, again: claim_id.is_some() })
}

impl Claim {
    /// The claim that follows reports: unless it has an id of its own, theirs is its id, so that a repetition of the
    /// reports, and only that, may find what it got.
    pub(super) fn continuing(mut self, kind: &str, id: &[u8], repeated: bool) -> Self {
        if self.request.claim.is_none() {
            self.request.claim = Some(Dispatch::claim_digest(kind, id));
            self.again = repeated;
        }
        self
    }

    pub(super) async fn run(&self, api: &Api) -> Result<Delivery, Problem> {
        let request = self.request.clone();
        let (address, concurrency) = self.worker;
        api.dispatch.claims(&request, address, concurrency);
        let delivery = match self.again {
            true => api.dispatch.claim_again(request, self.wait).await?,
            false => api.dispatch.claim(request, self.wait).await?,
        };
        Ok(delivery)
    }

    /// Runs the claim of a request that has ended leases. That is done and must not look undone: when too many wait, it
    /// gets what was there at once, which is nothing.
    pub(super) async fn follow(&self, api: &Api) -> Result<Delivery, Problem> {
        match self.run(api).await {
            Err(problem) if problem.code() == Code::TooManyWaiting => Ok(Delivery::default()),
            other => other,
        }
    }

    /// Says which preference was applied, and whether the request was willing to wait.
    pub(super) fn mark(&self, response: &mut Response) {
        if !self.wait.is_zero() {
            metrics::mark_poll(response);
        }
        if let Some(applied) = &self.preference {
            response.headers_mut().insert("preference-applied", applied.clone());
        }
    }
}
