//! `/livez`: the process runs. `/readyz`: the server can serve requests.

use axum::extract::State as Shared;
use axum::response::Response;
use serde::Serialize;

use super::problem::{Code, Problem};
use super::response;
use super::state::Api;
use crate::degradations::Degradation;
use crate::store;
use crate::store::redis::preflight::check_config;

#[derive(Serialize)]
struct HealthStatus {
    status: &'static str,
}

#[derive(Serialize)]
struct ReadyStatus {
    status: &'static str,
    degradations: Vec<Degradation>,
}

pub(super) async fn live() -> Response {
    response::ok(&HealthStatus { status: "ok" })
}

pub(super) async fn ready(Shared(api): Shared<Api>) -> Result<Response, Problem> {
    if api.server.is_stopping() {
        return Err(store::Error::Stopping.into());
    }
    // A write: the completion subscription of a task that cannot exist.
    api.dispatch.check_readiness().await?;
    if let Some(loss) = api.store().shards().iter().find_map(|shard| shard.breaker.data_loss()) {
        return Err(store::Error::DataLoss(loss).into());
    }
    let findings = check_config(api.store().client(), api.durability).await?;
    if let Some(finding) = findings.into_iter().find(|finding| finding.is_fatal) {
        return Err(Problem::new(Code::Unavailable, finding.message));
    }
    let degradations = api.store().degradations().list();
    let status = if degradations.is_empty() { "ready" } else { "degraded" };
    Ok(response::ok(&ReadyStatus { status, degradations }))
}
