//! `/openapi.yaml` and `/docs`: the contract, and a page that renders it without other hosts.

use axum::http::{HeaderValue, header};
use axum::response::{Html, IntoResponse, Response};

/// The OpenAPI document, written by hand.
pub const CONTRACT: &str = include_str!("../../openapi.yaml");
/// RapiDoc, by Mrinmoy Majumdar, MIT licence; see assets/README.md.
const RENDERER: &str = include_str!("../../assets/rapidoc-min.js");
const PAGE: &str = include_str!("../../assets/docs.html");

fn with_content_type(body: &'static str, kind: &'static str) -> Response {
    let mut response = body.into_response();
    response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static(kind));
    response
}

pub(super) async fn contract() -> Response {
    with_content_type(CONTRACT, "application/yaml")
}

pub(super) async fn page() -> Html<&'static str> {
    Html(PAGE)
}

pub(super) async fn renderer() -> Response {
    with_content_type(RENDERER, "text/javascript")
}
