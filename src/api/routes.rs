//! The one table of routes.

use axum::Router;
use axum::http::Method;
use axum::response::{IntoResponse as _, Response};
use axum::routing::{MethodRouter, delete, get, post};
use tower_http::csrf::CsrfLayer;

use super::problem::{Code, Problem};
use super::request_id::RequestIdLayer;
use super::{
    Api, batch, claims, docs, events, health, list, metrics, queues, reports, slots, stats, submit, tasks, workers,
};

/// Method, path, handler.
pub fn route_table() -> Vec<(Method, &'static str, MethodRouter<Api>)> {
    vec![
        (Method::POST, "/tasks", post(submit::submit)),
        (Method::POST, "/tasks/batch", post(batch::submit)),
        (Method::GET, "/tasks", get(list::list)),
        (Method::GET, "/tasks/{id}", get(tasks::read)),
        (Method::DELETE, "/tasks/{id}", delete(tasks::delete)),
        (Method::POST, "/tasks/{id}/cancel", post(tasks::cancel)),
        (Method::POST, "/tasks/{id}/retry", post(tasks::retry)),
        (Method::POST, "/claim", post(claims::claim)),
        (Method::POST, "/complete", post(claims::complete)),
        (Method::POST, "/complete/batch", post(batch::complete)),
        (Method::POST, "/fail", post(reports::fail)),
        (Method::POST, "/heartbeat", post(reports::heartbeat)),
        (Method::POST, "/release", post(reports::release)),
        (Method::GET, "/queues", get(queues::list)),
        (Method::GET, "/queues/{queue}", get(queues::read)),
        (Method::POST, "/queues/{queue}/pause", post(queues::pause)),
        (Method::POST, "/queues/{queue}/resume", post(queues::resume)),
        (Method::POST, "/queues/{queue}/purge", post(queues::purge)),
        (Method::GET, "/workers", get(workers::list)),
        (Method::GET, "/slots", get(slots::read)),
        (Method::GET, "/stats", get(stats::read)),
        (Method::GET, "/events", get(events::subscribe)),
        (Method::GET, "/metrics", get(metrics::read)),
        (Method::GET, "/livez", get(health::live)),
        (Method::GET, "/readyz", get(health::ready)),
        (Method::GET, "/openapi.yaml", get(docs::contract)),
        (Method::GET, "/docs", get(docs::page)),
        (Method::GET, "/docs/rapidoc.js", get(docs::renderer)),
    ]
}

/// The service.
pub fn router(api: Api) -> Router {
    let mut router = Router::new();
    for (_, path, handler) in route_table() {
        router = router.route(path, handler);
    }
    let metrics_layer = api.metrics.request_layer();
    router
        .fallback(|| async { Problem::new(Code::RouteNotFound, "GET /docs says what there is") })
        .method_not_allowed_fallback(|| async {
            Problem::new(Code::MethodNotAllowed, "the Allow header says which methods there are")
        })
        // One layer of all: each one boxes every request anew.
        .layer((metrics_layer, RequestIdLayer, CsrfLayer::new().with_rejection_response(|_| cross_site_response())))
        .with_state(api)
}

/// A page of somebody else's, open in a browser that can reach this server, does not get to steer it.
fn cross_site_response() -> Response {
    Problem::new(Code::CrossSite, "browsers may send this only from a page of this server").into_response()
}
