//! `/livez`: the process runs. `/readyz`: the server can serve requests.

use axum::extract::State as Shared;
use axum::response::Response;
use serde::Serialize;

use super::problem::{Code, Problem};
use super::response;
use super::state::Api;
use crate::degradations::Degradation;
use crate::store;
use crate::store::isolation::unreadable_callers;
use crate::store::memory::{History, MemoryTotals, memory_totals};
use crate::store::permissions::check_shards;
use crate::store::redis::preflight::check_config;

#[derive(Serialize)]
struct HealthStatus {
    status: &'static str,
}

#[derive(Serialize)]
struct ReadyStatus {
    status: &'static str,
    degradations: Vec<Degradation>,
    memory: Option<MemoryJson>,
}

/// The memory of all masters, as last read by this server.
#[derive(Serialize)]
struct MemoryJson {
    used_bytes: u64,
    max_bytes: Option<u64>,
    history_bytes: u64,
    history_tasks: u64,
}

impl From<MemoryTotals> for MemoryJson {
    fn from(totals: MemoryTotals) -> Self {
        let MemoryTotals { used, max, fullest: _, history: History { tasks, bytes } } = totals;
        MemoryJson { used_bytes: used, max_bytes: max, history_bytes: bytes, history_tasks: tasks }
    }
}

pub(super) async fn live() -> Response {
    response::ok(&HealthStatus { status: "ok" })
}

pub(super) async fn ready(Shared(api): Shared<Api>) -> Result<Response, Problem> {
    if api.server.is_stopping() {
        return Err(store::Error::Stopping.into());
    }
    check_shards(api.store(), 0).await?;
    // A write: the completion subscription of a task that cannot exist.
    if let Err(error) = api.dispatch.check_readiness().await {
        return Err(unready(&api, error).await);
    }
    if let Some(loss) = api.store().shards().iter().find_map(|shard| shard.breaker.data_loss()) {
        return Err(store::Error::DataLoss(loss).into());
    }
    let findings = check_config(api.store().client(), api.durability).await?;
    if let Some(finding) = findings.into_iter().find(|finding| finding.is_fatal) {
        return Err(Problem::new(Code::Unavailable, finding.message));
    }
    let degradations = api.store().degradations().list();
    let status = if degradations.is_empty() { "ready" } else { "degraded" };
    let memory = memory_totals(api.store().shards().iter().map(|shard| &*shard.memory)).map(MemoryJson::from);
    Ok(response::ok(&ReadyStatus { status, degradations, memory }))
}

/// Returns the problem of a failed write. If no script runs in a shard, it says why.
async fn unready(api: &Api, error: store::Error) -> Problem {
    if matches!(error, store::Error::Unexpected(_)) {
        for shard in api.store().shards() {
            if let Ok(Some(reason)) = unreadable_callers(shard).await {
                let detail = format!("shard {}: {reason}; `slotwheel doctor --repair` sets it aside", shard.index);
                return Problem::new(Code::Unavailable, detail);
            }
        }
    }
    error.into()
}
