//! `/fail`, `/heartbeat`, `/release`: the reports of workers other than completions.

use axum::extract::{Extension, State as Shared};
use axum::response::Response;
use serde::Serialize;

use super::body::ReportBody;
use super::claims::{parse_lease_ref, parse_task_id};
use super::json::adjusted::Adjusted;
use super::json::as_text::AsText;
use super::json::batch_results::BatchResults;
use super::json::fields::Fields;
use super::problem::{Code, Problem};
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
use crate::store::ops::release::{Release, Releaser};
use crate::store::ops::{LeaseEnd, LeaseRef};
use crate::store::views::tasks::LeaseState;
use crate::store::{self, views};

/// The `type` of a reported error without one.
const DEFAULT_ERROR_TYPE: &str = "Error";

#[derive(Serialize)]
struct TransitionResponse {
    id: AsText<TaskId>,
    state: &'static str,
    run_at: Option<AsText<TimestampMs>>,
    adjusted: Adjusted,
}

/// Returns the response to a single report.
fn transition_response(
    id: TaskId,
    mut outcomes: Vec<store::Result<LeaseEnd>>,
    adjusted: Adjusted,
) -> Result<Response, Problem> {
    let ended = outcomes.pop().ok_or_else(|| Problem::new(Code::Internal, "the report has no result"))??;
    let adjusted = adjusted.with_dropped(ended.has_dropped(), || "/error/details".to_owned());
    let (state, run_at) = returned(ended)?;
    let (state, run_at) = (state.as_str(), run_at.map(AsText));
    Ok(response::ok(&TransitionResponse { id: AsText(id), state, run_at, adjusted }))
}

/// Returns the state of a task after the end of its lease, and when it can be claimed again, if later.
pub(super) fn returned(ended: LeaseEnd) -> Result<(State, Option<TimestampMs>), Problem> {
    match ended {
        LeaseEnd::Done { state, run_at, .. } => Ok((state, run_at)),
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
    pub(super) adjusted: Adjusted,
}

/// Parses the body of `POST /fail`.
pub(super) fn parse_failure(object: &Fields<'_>, mut adjusted: Adjusted) -> Result<FailRequest, Problem> {
    let lease_ref = parse_lease_ref(object)?;
    let report = parse_error_report(&object.required("error")?.object()?, &mut adjusted)?;
    let retry = object.optional("retry").map_or(Ok(true), |field| field.bool())?;
    let retry_in = object.clamped_int("retry_in_ms", limits::RETRY_IN_MS, &mut adjusted)?;
    object.deny_unknown()?;
    Ok(FailRequest { lease_ref, report, retry, retry_in, adjusted })
}

pub(super) async fn fail(Shared(api): Shared<Api>, body: ReportBody) -> Result<Response, Problem> {
    let mut request = parse_failure(&body.object()?, body.adjusted())?;
    let (id, adjusted) = (request.lease_ref.id, std::mem::take(&mut request.adjusted));
    let failures: Vec<Failure> = failures(&api, vec![request]).await.into_iter().collect::<Result<_, _>>()?;
    transition_response(id, api.dispatch.fail(failures).await, adjusted)
}

/// Completes failures by what the leases say of worker and retry, in order. If a token is valid, these values are
/// current: they change only when a lease begins or ends.
pub(super) async fn failures(api: &Api, requests: Vec<FailRequest>) -> Vec<Result<Failure, Problem>> {
    let ids: Vec<TaskId> = requests.iter().map(|request| request.lease_ref.id).collect();
    let lease_states = views::tasks::lease_states_of(api.store(), &ids).await;
    let failure = |(request, lease_state): (FailRequest, store::Result<Option<LeaseState>>)| {
        let FailRequest { lease_ref, report, retry, retry_in, adjusted: _ } = request;
        let holding = lease_state?.ok_or_else(Problem::task_not_found)?;
        let wait_ms = retry.then(|| retry_in.unwrap_or_else(|| holding.retry_delay_ms(rand::random())));
        let report = ErrorReport { worker: holding.worker, ..report };
        Ok(Failure { lease_ref, report, wait_ms })
    };
    requests.into_iter().zip(lease_states).map(failure).collect()
}

fn parse_error_report(object: &Fields<'_>, adjusted: &mut Adjusted) -> Result<ErrorReport, Problem> {
    let kind = object.cut_text("type", limits::MAX_NAME_BYTES, adjusted)?.filter(|kind| !kind.is_empty());
    let report = ErrorReport {
        // Set by the caller, from the state of the lease.
        worker: String::new(),
        kind: kind.unwrap_or_else(|| DEFAULT_ERROR_TYPE.to_owned()),
        message: object.cut_text("message", limits::MAX_MESSAGE_BYTES, adjusted)?.unwrap_or_default(),
        details: object.cut_document("details", adjusted),
    };
    object.deny_unknown()?;
    Ok(report)
}

pub(super) async fn release(Shared(api): Shared<Api>, body: ReportBody) -> Result<Response, Problem> {
    let (release, adjusted) = parse_release(&body.object()?, body.adjusted())?;
    transition_response(release.lease_ref.id, api.dispatch.release(vec![release]).await, adjusted)
}

/// Parses the body of `POST /release`.
pub(super) fn parse_release(object: &Fields<'_>, mut adjusted: Adjusted) -> Result<(Release, Adjusted), Problem> {
    let lease_ref = parse_lease_ref(object)?;
    let delay_ms = object.clamped_int("delay_ms", limits::DELAY_MS, &mut adjusted)?;
    object.deny_unknown()?;
    let delay_ms = delay_ms.unwrap_or(limits::DELAY_MS.default);
    Ok((Release { lease_ref, by: Releaser::Worker, delay_ms }, adjusted))
}

#[derive(Serialize)]
struct HeartbeatResult {
    id: AsText<TaskId>,
    lease_until: Option<AsText<TimestampMs>>,
    cancel_requested: Option<bool>,
    problem: Option<Problem>,
    adjusted: Adjusted,
}

#[derive(Serialize)]
struct HeartbeatResponse {
    tasks: Vec<HeartbeatResult>,
}

/// The body of `POST /heartbeat`: the worker, the leases to extend, and for each its task and adjustments.
pub(super) struct HeartbeatRequest {
    pub(super) worker: Option<String>,
    pub(super) items: Vec<(TaskId, Adjusted)>,
    pub(super) heartbeats: BatchResults<LeaseHeartbeat, LeaseExtended>,
}

pub(super) async fn heartbeat(
    Shared(api): Shared<Api>,
    Extension(peer): Extension<Peer>,
    body: ReportBody,
) -> Result<Response, Problem> {
    let HeartbeatRequest { worker, items, mut heartbeats } = parse_heartbeats(&body.object()?, body.adjusted())?;
    if let Some(worker) = worker {
        api.dispatch.record_heartbeat(&worker, peer.0.ip());
    }
    let pending = heartbeats.take_pending();
    let results = heartbeats.into_results(api.dispatch.ops().heartbeat(pending).await);
    let tasks = items.into_iter().zip(results).enumerate().map(|(index, ((id, adjusted), outcome))| {
        let dropped = matches!(outcome, Ok(LeaseExtended::Extended { dropped: true, .. }));
        heartbeat_result(id, outcome, adjusted.with_dropped(dropped, || format!("/tasks/{index}/progress")))
    });
    Ok(response::ok(&HeartbeatResponse { tasks: tasks.collect() }))
}

/// Parses the body of `POST /heartbeat`.
pub(super) fn parse_heartbeats(object: &Fields<'_>, mut adjusted: Adjusted) -> Result<HeartbeatRequest, Problem> {
    let worker = object.cut_text("worker", limits::MAX_NAME_BYTES, &mut adjusted)?.filter(|name| !name.is_empty());
    let list = object.batch_items("tasks")?;
    object.deny_unknown()?;
    let (mut items, mut heartbeats) = (Vec::new(), BatchResults::new());
    for item in list.fields() {
        let (object, mut adjusted) = (item.object()?, adjusted.clone());
        let id = parse_task_id(&object)?;
        heartbeats.push(parse_heartbeat(&object, &mut adjusted));
        items.push((id, adjusted));
    }
    Ok(HeartbeatRequest { worker, items, heartbeats })
}

fn parse_heartbeat(object: &Fields<'_>, adjusted: &mut Adjusted) -> Result<LeaseHeartbeat, Problem> {
    let lease_ref: LeaseRef = parse_lease_ref(object)?;
    let lease_ms = object.clamped_int("lease_ms", limits::LEASE_MS, adjusted)?;
    let progress = object.cut_document("progress", adjusted);
    object.deny_unknown()?;
    Ok(LeaseHeartbeat { lease_ref, lease_ms, progress })
}

fn heartbeat_result(id: TaskId, outcome: Result<LeaseExtended, Problem>, adjusted: Adjusted) -> HeartbeatResult {
    let id = AsText(id);
    let (lease_until, cancel_requested, problem) = match outcome {
        Ok(LeaseExtended::Extended { lease_until: until, cancel_requested, .. }) => {
            (Some(AsText(until)), Some(cancel_requested), None)
        }
        Ok(LeaseExtended::LeaseLost(state)) => (None, None, Some(Problem::lease_lost(state))),
        Ok(LeaseExtended::Unknown) => (None, None, Some(Problem::task_not_found())),
        Err(problem) => (None, None, Some(problem)),
    };
    HeartbeatResult { id, lease_until, cancel_requested, problem, adjusted }
}
