//! The one table of routes.

use axum::http::Method;

use super::router::{Endpoint, compressed, endpoint};
use super::{
    batch, claims, docs, events, health, list, metrics, queues, report_batches, reports, slots, stats, submit, tasks,
    workers,
};

/// Returns method, path and handler of every route.
pub fn route_table() -> Vec<(Method, &'static str, Endpoint)> {
    vec![
        (Method::POST, "/tasks", endpoint(submit::submit)),
        (Method::POST, "/tasks/batch", endpoint(batch::submit)),
        (Method::GET, "/tasks", endpoint(list::list)),
        (Method::GET, "/tasks/{id}", endpoint(tasks::read)),
        (Method::DELETE, "/tasks/{id}", endpoint(tasks::delete)),
        (Method::POST, "/tasks/{id}/cancel", endpoint(tasks::cancel)),
        (Method::POST, "/tasks/{id}/retry", endpoint(tasks::retry)),
        (Method::POST, "/tasks/{id}/run", endpoint(tasks::run)),
        (Method::POST, "/tasks/{id}/release", endpoint(tasks::release)),
        (Method::POST, "/claim", endpoint(claims::claim)),
        (Method::POST, "/complete", endpoint(claims::complete)),
        (Method::POST, "/complete/batch", endpoint(batch::complete)),
        (Method::POST, "/fail", endpoint(reports::fail)),
        (Method::POST, "/fail/batch", endpoint(report_batches::fail)),
        (Method::POST, "/heartbeat", endpoint(reports::heartbeat)),
        (Method::POST, "/release", endpoint(reports::release)),
        (Method::POST, "/release/batch", endpoint(report_batches::release)),
        (Method::GET, "/queues", endpoint(queues::list)),
        (Method::GET, "/queues/{queue}", endpoint(queues::read)),
        (Method::DELETE, "/queues/{queue}", endpoint(queues::remove)),
        (Method::POST, "/queues/{queue}/pause", endpoint(queues::pause)),
        (Method::POST, "/queues/{queue}/resume", endpoint(queues::resume)),
        (Method::POST, "/queues/{queue}/purge", endpoint(queues::purge)),
        (Method::GET, "/workers", endpoint(workers::list)),
        (Method::GET, "/slots", endpoint(slots::read)),
        (Method::GET, "/stats", endpoint(stats::read)),
        (Method::GET, "/events", endpoint(events::subscribe)),
        (Method::GET, "/metrics", compressed(metrics::read)),
        (Method::GET, "/livez", endpoint(health::live)),
        (Method::GET, "/readyz", endpoint(health::ready)),
        (Method::GET, "/openapi.yaml", compressed(docs::contract)),
        (Method::GET, "/docs", endpoint(docs::page)),
        (Method::GET, "/docs/rapidoc.js", compressed(docs::renderer)),
    ]
}
