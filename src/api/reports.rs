//! `/fail`, `/heartbeat`, `/release`: the reports of workers other than completions.

use axum::extract::{Extension, State as Shared};
use axum::response::Response;
use serde::Serialize;

use super::claims::{parse_lease_ref, parse_task_id};
use super::extract::{BatchBody, SingleBody};
use super::json::as_text::AsText;
use super::json::batch_results::BatchResults;
use super::json::fields::Fields;
use super::problem::Problem;
use super::response;
use super::state::Api;
use crate::domain::id::TaskId;
use crate::domain::limits;
use crate::domain::state::State;
use crate::domain::task::ErrorReport;
use crate::domain::time::TimestampMs;
use crate::http_server::Peer;
use crate::store::ops::fail::Failure;
use crate::store::ops::heartbeat::{LeaseExtended, LeaseHeartbeat};
use crate::store::ops::release::Release;
use crate::store::ops::{LeaseEnd, LeaseRef};
use crate::store::views;

/// The `type` of a reported error without one.
const DEFAULT_ERROR_TYPE: &str = "Error";

#[derive(Serialize)]
struct TransitionResponse {
    id: AsText<TaskId>,
    state: &'static str,
    run_at: Option<AsText<TimestampMs>>,
}

fn transition_response(id: TaskId, ended: LeaseEnd) -> Result<Response, Problem> {
    match ended {
        LeaseEnd::Done { state, run_at, .. } => {
            Ok(response::ok(&TransitionResponse { id: AsText(id), state: state.as_str(), run_at: run_at.map(AsText) }))
        }
        LeaseEnd::LeaseLost(state) => Err(Problem::lease_lost(state)),
        LeaseEnd::Unknown => Err(Problem::task_not_found()),
    }
}

/// The body of `POST /fail`.
#[derive(Debug)]
pub(super) struct FailRequest {
    pub(super) lease_ref: LeaseRef,
    pub(super) report: ErrorReport,
    pub(super) retry: bool,
    /// Delay of the retry in ms.
    pub(super) retry_in: Option<i64>,
}

/// Parses the body of `POST /fail`.
pub(super) fn parse_failure(object: &Fields<'_>) -> Result<FailRequest, Problem> {
    let lease_ref = parse_lease_ref(object)?;
    let report = parse_error_report(&object.required("error")?.object()?)?;
    let retry = object.optional("retry").map_or(Ok(true), |field| field.bool())?;
    let retry_in = object.optional_int("retry_in_ms", limits::RETRY_IN_MS)?;
    object.deny_unknown()?;
    Ok(FailRequest { lease_ref, report, retry, retry_in })
}

pub(super) async fn fail(Shared(api): Shared<Api>, body: SingleBody) -> Result<Response, Problem> {
    let FailRequest { lease_ref, report, retry, retry_in } = parse_failure(&body.object()?)?;
    let id = lease_ref.id;
    // If the token is valid, these values are current: they change only when a lease begins or ends.
    let lease_state =
        views::tasks::lease_states(api.store().shard_for_task(&id), &[id]).await?.into_iter().next().flatten();
    let holding = lease_state.ok_or_else(Problem::task_not_found)?;
    let wait_ms = retry.then(|| retry_in.unwrap_or_else(|| holding.retry_delay_ms(rand::random())));
    let report = ErrorReport { worker: holding.worker, ..report };
    transition_response(id, api.dispatch.fail(Failure { lease_ref, report, wait_ms }).await?)
}

fn parse_error_report(object: &Fields<'_>) -> Result<ErrorReport, Problem> {
    let report = ErrorReport {
        // Set by the caller, from the state of the lease.
        worker: String::new(),
        kind: object
            .optional("type")
            .map_or_else(|| Ok(DEFAULT_ERROR_TYPE.to_owned()), |field| field.nonempty_text(limits::MAX_NAME_BYTES))?,
        message: object.required("message")?.text(limits::MAX_MESSAGE_BYTES)?,
        details: object.optional("details").map(|field| field.document()).transpose()?,
    };
    object.deny_unknown()?;
    Ok(report)
}

pub(super) async fn release(Shared(api): Shared<Api>, body: SingleBody) -> Result<Response, Problem> {
    let release = parse_release(&body.object()?)?;
    transition_response(release.lease_ref.id, api.dispatch.release(release).await?)
}

/// Parses the body of `POST /release`.
pub(super) fn parse_release(object: &Fields<'_>) -> Result<Release, Problem> {
    let lease_ref = parse_lease_ref(object)?;
    let delay_ms = object.int_or_default("delay_ms", limits::DELAY_MS)?;
    object.deny_unknown()?;
    Ok(Release { lease_ref, delay_ms })
}

#[derive(Serialize)]
struct HeartbeatResult {
    id: AsText<TaskId>,
    lease_until: Option<AsText<TimestampMs>>,
    cancel_requested: Option<bool>,
    problem: Option<Problem>,
}

#[derive(Serialize)]
struct HeartbeatResponse {
    tasks: Vec<HeartbeatResult>,
}

/// The body of `POST /heartbeat`: the worker, the task ids, and the leases to extend.
pub(super) struct HeartbeatRequest {
    pub(super) worker: Option<String>,
    pub(super) ids: Vec<TaskId>,
    pub(super) heartbeats: BatchResults<LeaseHeartbeat, LeaseExtended>,
}

pub(super) async fn heartbeat(
    Shared(api): Shared<Api>,
    Extension(peer): Extension<Peer>,
    body: BatchBody,
) -> Result<Response, Problem> {
    let HeartbeatRequest { worker, ids, mut heartbeats } = parse_heartbeats(&body.object()?)?;
    if let Some(worker) = worker {
        api.dispatch.record_heartbeat(&worker, peer.0.ip());
    }
    let pending = heartbeats.take_pending();
    let results = heartbeats.into_results(api.dispatch.ops().heartbeat(pending).await);
    let tasks = ids.into_iter().zip(results).map(|(id, outcome)| heartbeat_result(id, outcome)).collect();
    Ok(response::ok(&HeartbeatResponse { tasks }))
}

/// Parses the body of `POST /heartbeat`.
pub(super) fn parse_heartbeats(object: &Fields<'_>) -> Result<HeartbeatRequest, Problem> {
    let worker = object.optional_name("worker")?;
    let list = object.batch_items("tasks")?;
    object.deny_unknown()?;
    let (mut ids, mut heartbeats) = (Vec::new(), BatchResults::new());
    for item in list.fields() {
        let object = item.object()?;
        ids.push(parse_task_id(&object)?);
        heartbeats.push(parse_heartbeat(&object));
    }
    Ok(HeartbeatRequest { worker, ids, heartbeats })
}

fn parse_heartbeat(object: &Fields<'_>) -> Result<LeaseHeartbeat, Problem> {
    let lease_ref: LeaseRef = parse_lease_ref(object)?;
    let lease_ms = object.optional_int("lease_ms", limits::LEASE_MS)?;
    let progress = object.optional("progress").map(|field| field.document()).transpose()?;
    object.deny_unknown()?;
    Ok(LeaseHeartbeat { lease_ref, lease_ms, progress })
}

fn heartbeat_result(id: TaskId, outcome: Result<LeaseExtended, Problem>) -> HeartbeatResult {
    let id = AsText(id);
    let (lease_until, cancel_requested, problem) = match outcome {
        Ok(LeaseExtended::Extended { lease_until: until, cancel_requested }) => {
            (Some(AsText(until)), Some(cancel_requested), None)
        }
        Ok(LeaseExtended::LeaseLost(state)) => (None, None, Some(Problem::lease_lost(state))),
        Ok(LeaseExtended::Unknown) => (None, None, Some(Problem::task_not_found())),
        Err(problem) => (None, None, Some(problem)),
    };
    HeartbeatResult { id, lease_until, cancel_requested, problem }
}

/// Returns the state of a task after the end of its lease.
pub(super) fn ended_state(ended: LeaseEnd) -> Result<State, Problem> {
    match ended {
        LeaseEnd::Done { state, .. } => Ok(state),
        LeaseEnd::LeaseLost(state) => Err(Problem::lease_lost(state)),
        LeaseEnd::Unknown => Err(Problem::task_not_found()),
    }
}
