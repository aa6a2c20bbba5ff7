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

pub(super) use requests::{Counting, Requests, mark_poll};

const OPENMETRICS: &str = "application/openmetrics-text";
const OPENMETRICS_1: HeaderValue =
    HeaderValue::from_static("application/openmetrics-text; version=1.0.0; charset=utf-8");
const TEXT: HeaderValue = HeaderValue::from_static("text/plain; version=0.0.4; charset=utf-8");

/// What this floor counts itself.
#[derive(Debug)]
pub struct Meters {
    requests: Arc<Requests>,
    started: SystemTime,
}

impl Meters {
    /// Of a server that starts now.
    pub fn start() -> Arc<Self> {
        let requests = Arc::new(Requests::of(&super::table()));
        Arc::new(Meters { requests, started: SystemTime::now() })
    }

    /// The layer that counts requests.
    pub(super) fn counting(&self) -> Counting {
        Counting(self.requests.clone())
    }
}

pub(super) async fn read(Shared(api): Shared<Api>, headers: HeaderMap) -> Result<Response, Problem> {
    let seen = api.overviews.read(api.store()).await;
    let mut registry = Registry::default();
    registry.register_collector(Box::new(Families { api, seen }));
    let mut written = String::new();
    encode(&mut written, &registry).map_err(|error| {
        tracing::error!(%error, "metrics could not be written");
        Problem::new(Code::Internal, "the server's log says more")
    })?;
    let openmetrics = headers.get_all(header::ACCEPT).iter().any(|accept| asks_for(accept, OPENMETRICS));
    let (kind, written) = if openmetrics { (OPENMETRICS_1, written) } else { (TEXT, text::older(&written)) };
    let mut response = written.into_response();
    response.headers_mut().insert(header::CONTENT_TYPE, kind);
    response.headers_mut().insert(header::VARY, HeaderValue::from_static("accept"));
    Ok(response)
}

/// Whether an Accept header names the type, and not in order to exclude it.
fn asks_for(accept: &HeaderValue, kind: &str) -> bool {
    let Ok(accept) = accept.to_str() else { return false };
    accept.split(',').any(|one| {
        let mut parts = one.split(';').map(str::trim);
        let named = parts.next().is_some_and(|name| name.eq_ignore_ascii_case(kind));
        named && !parts.any(excludes)
    })
}

/// Whether a parameter of an Accept header is a weight of zero.
fn excludes(parameter: &str) -> bool {
    let weight = parameter.split_once('=').filter(|(name, _)| name.eq_ignore_ascii_case("q"));
    weight.and_then(|(_, weight)| weight.parse::<f32>().ok()).is_some_and(|weight| weight <= 0.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn openmetrics_is_for_who_asks_for_it() {
        let asks = |accept: &'static str| asks_for(&HeaderValue::from_static(accept), OPENMETRICS);
        assert!(asks("application/openmetrics-text;version=1.0.0;q=0.5,text/plain;version=0.0.4;q=0.3,*/*;q=0.1"));
        assert!(asks("text/plain, Application/OpenMetrics-Text"));
        assert!(!asks("*/*") && !asks("text/plain"));
        for weight in ["q=0", "Q=0.0", "q=0.00", "q=0.000", "version=1.0.0; q=0."] {
            let accept = HeaderValue::from_str(&format!("application/openmetrics-text; {weight}")).unwrap();
            assert!(!asks_for(&accept, OPENMETRICS), "{weight}");
        }
        assert!(asks("application/openmetrics-text; q=0.001"));
    }
}
