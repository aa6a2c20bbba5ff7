//! `/fail/batch` and `/release/batch`: many reports in one request. Each succeeds or fails alone; results are in order.

use axum::extract::State as Shared;
use axum::http::StatusCode;
use axum::response::Response;
use serde::Serialize;

use super::body::ReportBody;
use super::claims::parse_task_id;
use super::json::adjusted::Adjusted;
use super::json::as_text::AsText;
use super::json::batch_results::BatchResults;
use super::json::fields::Fields;
use super::problem::Problem;
use super::reports::{FailRequest, failures, parse_failure, parse_release};
use super::response;
use super::state::Api;
use crate::domain::id::TaskId;
use crate::domain::time::TimestampMs;
use crate::store::ops::LeaseEnd;
use crate::store::ops::release::Release;

#[derive(Serialize)]
struct BatchResponse {
    results: Vec<ReturnedResult>,
}

#[derive(Serialize)]
struct ReturnedResult {
    id: AsText<TaskId>,
    status: u16,
    state: Option<&'static str>,
    run_at: Option<AsText<TimestampMs>>,
    problem: Option<Problem>,
    adjusted: Adjusted,
}

/// A parsed batch of reports, with the task and the adjustments of each.
#[derive(Debug)]
pub(super) struct ReportBatch<T> {
    items: Vec<(TaskId, Adjusted)>,
    pub(super) reports: BatchResults<T, LeaseEnd>,
}

impl<T> ReportBatch<T> {
    /// Parses the list `name`, each item by `parse`, which gets the adjustments of the body.
    fn parse(
        object: &Fields<'_>,
        name: &'static str,
        adjusted: &Adjusted,
        parse: impl Fn(&Fields<'_>, Adjusted) -> Result<(T, Adjusted), Problem>,
    ) -> Result<Self, Problem> {
        let list = object.batch_items(name)?;
        object.deny_unknown()?;
        let (mut items, mut reports) = (Vec::new(), BatchResults::new());
        for item in list.fields() {
            let object = item.object()?;
            let id = parse_task_id(&object)?;
            match parse(&object, adjusted.clone()) {
                Ok((report, adjusted)) => {
                    reports.push(Ok(report));
                    items.push((id, adjusted));
                }
                Err(problem) => {
                    reports.push(Err(problem));
                    items.push((id, Adjusted::default()));
                }
            }
        }
        Ok(ReportBatch { items, reports })
    }
}

/// Parses the body of `POST /fail/batch`.
pub(super) fn parse_failures(object: &Fields<'_>, adjusted: &Adjusted) -> Result<ReportBatch<FailRequest>, Problem> {
    ReportBatch::parse(object, "failures", adjusted, |object, adjusted| {
        let mut request = parse_failure(object, adjusted)?;
        let adjusted = std::mem::take(&mut request.adjusted);
        Ok((request, adjusted))
    })
}

/// Parses the body of `POST /release/batch`.
pub(super) fn parse_releases(object: &Fields<'_>, adjusted: &Adjusted) -> Result<ReportBatch<Release>, Problem> {
    ReportBatch::parse(object, "releases", adjusted, parse_release)
}

pub(super) async fn fail(Shared(api): Shared<Api>, body: ReportBody) -> Result<Response, Problem> {
    let ReportBatch { items, mut reports } = parse_failures(&body.object()?, &body.adjusted())?;
    drop(body);
    let mut found = BatchResults::new();
    failures(&api, reports.take_pending()).await.into_iter().for_each(|failure| found.push(failure));
    let pending = found.take_pending();
    let outcomes = found.into_results(api.dispatch.fail(pending).await);
    Ok(batch_response(items, reports.into_results(outcomes)))
}

pub(super) async fn release(Shared(api): Shared<Api>, body: ReportBody) -> Result<Response, Problem> {
    let ReportBatch { items, mut reports } = parse_releases(&body.object()?, &body.adjusted())?;
    drop(body);
    let pending = reports.take_pending();
    Ok(batch_response(items, reports.into_results(api.dispatch.release(pending).await)))
}

fn batch_response(items: Vec<(TaskId, Adjusted)>, outcomes: Vec<Result<LeaseEnd, Problem>>) -> Response {
    let results = items.into_iter().zip(outcomes).enumerate().map(|(index, ((id, adjusted), outcome))| {
        let id = AsText(id);
        // Releases have no documents.
        let has_dropped = outcome.as_ref().is_ok_and(LeaseEnd::has_dropped);
        let adjusted = adjusted.with_dropped(has_dropped, || format!("/failures/{index}/error/details"));
        match outcome.and_then(super::reports::returned) {
            Ok((state, run_at)) => {
                let (state, run_at) = (Some(state.as_str()), run_at.map(AsText));
                ReturnedResult { id, status: StatusCode::OK.as_u16(), state, run_at, problem: None, adjusted }
            }
            Err(problem) => {
                let status = problem.status().as_u16();
                ReturnedResult { id, status, state: None, run_at: None, problem: Some(problem), adjusted }
            }
        }
    });
    response::ok(&BatchResponse { results: results.collect() })
}
