//! `/fail`, `/heartbeat`, `/release`: what else workers say of the tasks that they hold.

use axum::extract::{Extension, State as Shared};
use axum::response::Response;
use serde::Serialize;

use super::batch::list;
use super::claims::{held, task_id};
use super::extract::{BatchBody, OneBody, Peer};
use super::items::Items;
use super::object::Object;
use super::problem::Problem;
use super::reply::Shown;
use super::{Api, reply};
use crate::domain::id::TaskId;
use crate::domain::limits;
use crate::domain::state::State;
use crate::domain::task::ErrorReport;
use crate::domain::time::Millis;
use crate::store::ops::fail::Failure;
use crate::store::ops::heartbeat::{Beat, Prolonged};
use crate::store::ops::release::Release;
use crate::store::ops::{Ended, Held};
use crate::store::views;

#[derive(Serialize)]
struct Moved {
    id: Shown<TaskId>,
    state: &'static str,
    run_at: Option<Shown<Millis>>,
}

fn moved(id: TaskId, ended: Ended) -> Result<Response, Problem> {
    match ended {
        Ended::Done { state, run_at, .. } => {
            Ok(reply::ok(&Moved { id: Shown(id), state: state.as_str(), run_at: run_at.map(Shown) }))
        }
        Ended::Lost(state) => Err(Problem::lease_lost(state)),
        Ended::Unknown => Err(Problem::no_task()),
    }
}

/// A failure as it was reported.
#[derive(Debug)]
pub(super) struct Failed {
    pub(super) held: Held,
    pub(super) report: ErrorReport,
    pub(super) retry: bool,
    /// In ms.
    pub(super) retry_in: Option<i64>,
}

/// Reads a failure.
pub(super) fn failed(object: &Object<'_>) -> Result<Failed, Problem> {
    let held = held(object)?;
    let report = report(&object.need("error")?.object()?)?;
    let retry = object.take("retry").map_or(Ok(true), |field| field.bool())?;
    let retry_in = object.take("retry_in_ms").map(|field| field.int(limits::RETRY_IN_MS)).transpose()?;
    object.finish()?;
    Ok(Failed { held, report, retry, retry_in })
}

pub(super) async fn fail(Shared(api): Shared<Api>, body: OneBody) -> Result<Response, Problem> {
    let Failed { held, report, retry, retry_in } = failed(&body.object()?)?;
    let id = held.id;
    // If the token holds, all this is still what was read here: it changes only when a lease begins or ends.
    let holding = views::tasks::holdings(api.dispatch.shard_of(&id), &[id]).await?.into_iter().next().flatten();
    let holding = holding.ok_or_else(Problem::no_task)?;
    let wait_ms = retry.then(|| retry_in.unwrap_or_else(|| holding.wait_ms(rand::random())));
    let report = ErrorReport { worker: holding.worker, ..report };
    moved(id, api.dispatch.fail(Failure { held, report, wait_ms }).await?)
}

fn report(object: &Object<'_>) -> Result<ErrorReport, Problem> {
    let report = ErrorReport {
        // Whoever holds the lease: it is read with it.
        worker: String::new(),
        kind: object.need("type")?.name(limits::NAME_BYTES)?,
        message: object.need("message")?.text(limits::MESSAGE_BYTES)?,
        details: object.take("details").map(|field| field.document()).transpose()?,
    };
    object.finish()?;
    Ok(report)
}

pub(super) async fn release(Shared(api): Shared<Api>, body: OneBody) -> Result<Response, Problem> {
    let release = released(&body.object()?)?;
    moved(release.held.id, api.dispatch.release(release).await?)
}

/// Reads a release.
pub(super) fn released(object: &Object<'_>) -> Result<Release, Problem> {
    let held = held(object)?;
    let delay_ms = object.int_or_default("delay_ms", limits::DELAY_MS)?;
    object.finish()?;
    Ok(Release { held, delay_ms })
}

#[derive(Serialize)]
struct Beaten {
    id: Shown<TaskId>,
    lease_until: Option<Shown<Millis>>,
    cancel_requested: Option<bool>,
    problem: Option<Problem>,
}

#[derive(Serialize)]
struct Beats {
    tasks: Vec<Beaten>,
}

/// A heartbeat: who sends it, which tasks it names, and what it says of each.
pub(super) struct Heartbeat {
    pub(super) worker: Option<String>,
    pub(super) ids: Vec<TaskId>,
    pub(super) beats: Items<Beat, Prolonged>,
}

pub(super) async fn heartbeat(
    Shared(api): Shared<Api>,
    Extension(peer): Extension<Peer>,
    body: BatchBody,
) -> Result<Response, Problem> {
    let Heartbeat { worker, ids, mut beats } = beats(&body.object()?)?;
    if let Some(worker) = worker {
        api.dispatch.beats(&worker, peer.0.ip());
    }
    let open = beats.take_open();
    let outcomes = beats.outcomes(api.dispatch.heartbeat(open).await);
    let tasks = ids.into_iter().zip(outcomes).map(|(id, outcome)| beaten(id, outcome)).collect();
    Ok(reply::ok(&Beats { tasks }))
}

/// Reads a heartbeat.
pub(super) fn beats(object: &Object<'_>) -> Result<Heartbeat, Problem> {
    let worker = object.take("worker").map(|worker| worker.name(limits::NAME_BYTES)).transpose()?;
    let list = list(object, "tasks")?;
    object.finish()?;
    let (mut ids, mut beats) = (Vec::new(), Items::new());
    for item in list.fields() {
        let object = item.object()?;
        ids.push(task_id(&object)?);
        beats.add(beat(&object));
    }
    Ok(Heartbeat { worker, ids, beats })
}

fn beat(object: &Object<'_>) -> Result<Beat, Problem> {
    let held: Held = held(object)?;
    let lease_ms = object.take("lease_ms").map(|field| field.int(limits::LEASE_MS)).transpose()?;
    let progress = object.take("progress").map(|field| field.document()).transpose()?;
    object.finish()?;
    Ok(Beat { held, lease_ms, progress })
}

fn beaten(id: TaskId, outcome: Result<Prolonged, Problem>) -> Beaten {
    let id = Shown(id);
    let (lease_until, cancel_requested, problem) = match outcome {
        Ok(Prolonged::Held { until, cancel_requested }) => (Some(Shown(until)), Some(cancel_requested), None),
        Ok(Prolonged::Lost(state)) => (None, None, Some(Problem::lease_lost(state))),
        Ok(Prolonged::Unknown) => (None, None, Some(Problem::no_task())),
        Err(problem) => (None, None, Some(problem)),
    };
    Beaten { id, lease_until, cancel_requested, problem }
}

/// The state that an ended lease led to, or the problem.
pub(super) fn outcome(ended: Ended) -> Result<State, Problem> {
    match ended {
        Ended::Done { state, .. } => Ok(state),
        Ended::Lost(state) => Err(Problem::lease_lost(state)),
        Ended::Unknown => Err(Problem::no_task()),
    }
}
