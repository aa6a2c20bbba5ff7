//! `/metrics`: what this process has done, and how the data set stands, for Prometheus and those who read what it reads.
//!
//! `requests` counts what the router answers, the engines keep instruments of their own, `families` writes them all
//! down. Of Redis the state of the data set is asked (`overviews`): it answers, whatever has happened there.

mod families;
mod requests;
mod text;

use std::sync::Arc;
use std::time::SystemTime;

use axum::extract::State as Shared;
use axum::http::{HeaderMap, HeaderValue, header};
use axum::response::{IntoResponse as _, Response};
use prometheus_client::encoding::text::encode;
use prometheus_client::registry::Registry;

use super::Api;
use super::problem::{Code, Problem};
use families::Families;

pub(super) use requests::{RequestMetrics, RequestMetricsLayer, mark_long_poll};

const OPENMETRICS: &str = "application/openmetrics-text";
const OPENMETRICS_1: HeaderValue =
    HeaderValue::from_static("application/openmetrics-text; version=1.0.0; charset=utf-8");
const TEXT: HeaderValue = HeaderValue::from_static("text/plain; version=0.0.4; charset=utf-8");

/// What this floor counts itself.
#[derive(Debug)]
pub struct Metrics {
    requests: Arc<RequestMetrics>,
    started_at: SystemTime,
}

impl Metrics {
    /// Of a server that starts now.
    pub fn start() -> Arc<Self> {
        let requests = Arc::new(RequestMetrics::new(&super::route_table()));
        Arc::new(Metrics { requests, started_at: SystemTime::now() })
    }

    /// The layer that counts requests.
    pub(super) fn request_layer(&self) -> RequestMetricsLayer {
        RequestMetricsLayer(self.requests.clone())
    }
}

pub(super) async fn read(Shared(api): Shared<Api>, headers: HeaderMap) -> Result<Response, Problem> {
    let status = api.status_cache.read(api.store()).await;
    let mut registry = Registry::default();
    registry.register_collector(Box::new(Families { api, status }));
    let mut text = String::new();
    encode(&mut text, &registry).map_err(|error| {
        tracing::error!(%error, "metrics could not be written");
        Problem::new(Code::Internal, "the server's log says more")
    })?;
    let openmetrics = headers.get_all(header::ACCEPT).iter().any(|accept| accepts(accept, OPENMETRICS));
    let (kind, written) = if openmetrics { (OPENMETRICS_1, text) } else { (TEXT, text::to_prometheus_text(&text)) };
    let mut response = written.into_response();
    response.headers_mut().insert(header::CONTENT_TYPE, kind);
    response.headers_mut().insert(header::VARY, HeaderValue::from_static("accept"));
    Ok(response)
}

/// Whether an Accept header names the type, and not in order to exclude it.
fn accepts(accept: &HeaderValue, kind: &str) -> bool {
    let Ok(accept) = accept.to_str() else { return false };
    accept.split(',').any(|one| {
        let mut parts = one.split(';').map(str::trim);
        let named = parts.next().is_some_and(|name| name.eq_ignore_ascii_case(kind));
        named && !parts.any(is_zero_weight)
    })
}

/// Whether a parameter of an Accept header is a weight of zero.
fn is_zero_weight(parameter: &str) -> bool {
    let weight = parameter.split_once('=').filter(|(name, _)| name.eq_ignore_ascii_case("q"));
    weight.and_then(|(_, weight)| weight.parse::<f32>().ok()).is_some_and(|weight| weight <= 0.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn openmetrics_is_served_only_if_accept_names_it() {
        let asks = |accept: &'static str| accepts(&HeaderValue::from_static(accept), OPENMETRICS);
        assert!(asks("application/openmetrics-text;version=1.0.0;q=0.5,text/plain;version=0.0.4;q=0.3,*/*;q=0.1"));
        assert!(asks("text/plain, Application/OpenMetrics-Text"));
        assert!(!asks("*/*") && !asks("text/plain"));
        for weight in ["q=0", "Q=0.0", "q=0.00", "q=0.000", "version=1.0.0; q=0."] {
            let accept = HeaderValue::from_str(&format!("application/openmetrics-text; {weight}")).unwrap();
            assert!(!accepts(&accept, OPENMETRICS), "{weight}");
        }
        assert!(asks("application/openmetrics-text; q=0.001"));
    }
}
