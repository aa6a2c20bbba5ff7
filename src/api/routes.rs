//! The one table of routes.

use axum::Router;
use axum::http::Method;
use axum::response::{IntoResponse as _, Response};
use axum::routing::{MethodRouter, delete, get, post};
use tower_http::compression::CompressionLayer;
use tower_http::csrf::CsrfLayer;

use super::problem::{Code, Problem};
use super::request_id::RequestIdLayer;
use super::request_metrics::RequestMetricsLayer;
use super::state::Api;
use super::{
    batch, claims, docs, events, health, list, metrics, queues, report_batches, reports, slots, stats, submit, tasks,
    workers,
};

/// Returns method, path and handler of every route.
pub fn route_table() -> Vec<(Method, &'static str, MethodRouter<Api>)> {
    vec![
        (Method::POST, "/tasks", post(submit::submit)),
        (Method::POST, "/tasks/batch", post(batch::submit)),
        (Method::GET, "/tasks", get(list::list)),
        (Method::GET, "/tasks/{id}", get(tasks::read)),
        (Method::DELETE, "/tasks/{id}", delete(tasks::delete)),
        (Method::POST, "/tasks/{id}/cancel", post(tasks::cancel)),
        (Method::POST, "/tasks/{id}/retry", post(tasks::retry)),
        (Method::POST, "/tasks/{id}/run", post(tasks::run)),
        (Method::POST, "/tasks/{id}/release", post(tasks::release)),
        (Method::POST, "/claim", post(claims::claim)),
        (Method::POST, "/complete", post(claims::complete)),
        (Method::POST, "/complete/batch", post(batch::complete)),
        (Method::POST, "/fail", post(reports::fail)),
        (Method::POST, "/fail/batch", post(report_batches::fail)),
        (Method::POST, "/heartbeat", post(reports::heartbeat)),
        (Method::POST, "/release", post(reports::release)),
        (Method::POST, "/release/batch", post(report_batches::release)),
        (Method::GET, "/queues", get(queues::list)),
        (Method::GET, "/queues/{queue}", get(queues::read)),
        (Method::DELETE, "/queues/{queue}", delete(queues::remove)),
        (Method::POST, "/queues/{queue}/pause", post(queues::pause)),
        (Method::POST, "/queues/{queue}/resume", post(queues::resume)),
        (Method::POST, "/queues/{queue}/purge", post(queues::purge)),
        (Method::GET, "/workers", get(workers::list)),
        (Method::GET, "/slots", get(slots::read)),
        (Method::GET, "/stats", get(stats::read)),
        (Method::GET, "/events", get(events::subscribe)),
        (Method::GET, "/metrics", get(metrics::read).layer(CompressionLayer::new())),
        (Method::GET, "/livez", get(health::live)),
        (Method::GET, "/readyz", get(health::ready)),
        (Method::GET, "/openapi.yaml", get(docs::contract).layer(CompressionLayer::new())),
        (Method::GET, "/docs", get(docs::page)),
        (Method::GET, "/docs/rapidoc.js", get(docs::renderer).layer(CompressionLayer::new())),
    ]
}

/// Builds the router: all routes, request ids, request metrics, and the check against cross-site requests.
pub fn router(api: Api) -> Router {
    let mut router = Router::new();
    for (_, path, handler) in route_table() {
        router = router.route(path, handler);
    }
    let metrics_layer = RequestMetricsLayer(api.request_metrics.clone());
    router
        .fallback(|| async { Problem::new(Code::RouteNotFound, "GET /docs lists all routes") })
        .method_not_allowed_fallback(|| async {
            Problem::new(Code::MethodNotAllowed, "the Allow header lists the methods of this path")
        })
        // One layer for all three: each layer boxes every request again.
        .layer((metrics_layer, RequestIdLayer, CsrfLayer::new().with_rejection_response(|_| cross_site_response())))
        .with_state(api)
}

/// Rejects a request that a page of another site makes through a browser that can reach this server.
fn cross_site_response() -> Response {
    Problem::new(Code::CrossSite, "a browser may send this request only from a page of this server").into_response()
}
