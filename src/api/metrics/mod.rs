//! `GET /metrics`: counters of this process and the state of the data set, in OpenMetrics or Prometheus text format.
//!
//! Each part of the program keeps its own instruments; `families` lists all of them. The data set is read through
//! [`StatusCache`](super::StatusCache). If Redis does not respond, the response has the counters of this process alone.

mod families;
mod text;

use axum::extract::State as Shared;
use axum::http::{HeaderMap, HeaderValue, header};
use axum::response::{IntoResponse as _, Response};
use prometheus_client::encoding::text::encode;
use prometheus_client::registry::Registry;

use super::problem::Problem;
use super::state::Api;
use families::Families;

const OPENMETRICS: &str = "application/openmetrics-text";
const OPENMETRICS_1: HeaderValue =
    HeaderValue::from_static("application/openmetrics-text; version=1.0.0; charset=utf-8");
const TEXT: HeaderValue = HeaderValue::from_static("text/plain; version=0.0.4; charset=utf-8");

pub(super) async fn read(Shared(api): Shared<Api>, headers: HeaderMap) -> Result<Response, Problem> {
    let status = api.status_cache.read(api.store()).await;
    let mut registry = Registry::default();
    registry.register_collector(Box::new(Families { api, status }));
    let mut openmetrics = String::new();
    encode(&mut openmetrics, &registry).map_err(|error| {
        tracing::error!(%error, "encoding metrics failed");
        Problem::internal()
    })?;
    let accepts_openmetrics = headers.get_all(header::ACCEPT).iter().any(|accept| accepts(accept, OPENMETRICS));
    let (content_type, text) = match accepts_openmetrics {
        true => (OPENMETRICS_1, openmetrics),
        false => (TEXT, text::to_prometheus_text(&openmetrics)),
    };
    let mut response = text.into_response();
    response.headers_mut().insert(header::CONTENT_TYPE, content_type);
    response.headers_mut().insert(header::VARY, HeaderValue::from_static("accept"));
    Ok(response)
}

/// Whether an Accept header names the media type with a weight above zero.
fn accepts(accept: &HeaderValue, media_type: &str) -> bool {
    let Ok(accept) = accept.to_str() else { return false };
    accept.split(',').any(|range| {
        let mut parts = range.split(';').map(str::trim);
        let is_named = parts.next().is_some_and(|name| name.eq_ignore_ascii_case(media_type));
        is_named && !parts.any(is_zero_weight)
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
        let accepts = |accept: &'static str| accepts(&HeaderValue::from_static(accept), OPENMETRICS);
        assert!(accepts("application/openmetrics-text;version=1.0.0;q=0.5,text/plain;version=0.0.4;q=0.3,*/*;q=0.1"));
        assert!(accepts("text/plain, Application/OpenMetrics-Text"));
        assert!(!accepts("*/*") && !accepts("text/plain"));
        for weight in ["q=0", "Q=0.0", "q=0.00", "q=0.000", "version=1.0.0; q=0."] {
            let accept = HeaderValue::from_str(&format!("application/openmetrics-text; {weight}")).unwrap();
            assert!(!super::accepts(&accept, OPENMETRICS), "{weight}");
        }
        assert!(accepts("application/openmetrics-text; q=0.001"));
    }
}
