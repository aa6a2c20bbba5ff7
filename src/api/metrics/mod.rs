//! `/metrics`: what this process has done, and how the data set stands, for Prometheus and those who read what it reads.
//!
//! `requests` counts what the router answers, the engines keep instruments of their own, `families` writes them all
//! down. Of Redis the state of the data set is asked, within a second: it answers, whatever has happened there. Who asks
//! while a reading is under way waits for its end, and shares the next one with all others who do.

mod families;
mod requests;
mod text;

use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use axum::extract::State as Shared;
use axum::http::{HeaderMap, HeaderValue, header};
use axum::response::{IntoResponse as _, Response};
use prometheus_client::encoding::text::encode;
use prometheus_client::registry::Registry;
use tokio::sync::Mutex;
use tokio::time::timeout;

use super::Api;
use super::problem::{Code, Problem};
use crate::store::views::overview::{Overview, overview};
use families::Families;

pub(super) use requests::{Counting, Requests, mark_poll};

/// What Redis may take.
const DEADLINE: Duration = Duration::from_secs(1);

const OPENMETRICS: &str = "application/openmetrics-text";
const OPENMETRICS_1: HeaderValue =
    HeaderValue::from_static("application/openmetrics-text; version=1.0.0; charset=utf-8");
const TEXT: HeaderValue = HeaderValue::from_static("text/plain; version=0.0.4; charset=utf-8");

/// What this floor counts itself.
#[derive(Debug)]
pub struct Meters {
    requests: Arc<Requests>,
    started: SystemTime,
    /// The last reading of what Redis knows. Held by whoever reads: one at a time, however many ask.
    last: Mutex<Option<Reading>>,
}

/// A look at the data set.
#[derive(Debug)]
struct Reading {
    began: Instant,
    /// `None`: Redis did not say.
    seen: Option<Arc<Overview>>,
}

impl Meters {
    /// Of a server that starts now.
    pub fn start() -> Arc<Self> {
        let requests = Arc::new(Requests::of(&super::table()));
        Arc::new(Meters { requests, started: SystemTime::now(), last: Mutex::default() })
    }

    /// The layer that counts requests.
    pub(super) fn counting(&self) -> Counting {
        Counting(self.requests.clone())
    }
}

pub(super) async fn read(Shared(api): Shared<Api>, headers: HeaderMap) -> Result<Response, Problem> {
    let seen = seen(&api).await;
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

/// How the data set stands; `None` where Redis does not say so in time. What was begun after this was asked for will do.
async fn seen(api: &Api) -> Option<Arc<Overview>> {
    let asked = Instant::now();
    let mut last = api.meters.last.lock().await;
    if let Some(reading) = last.as_ref().filter(|reading| reading.began >= asked) {
        return reading.seen.clone();
    }
    let began = Instant::now();
    let seen = match timeout(DEADLINE, overview(api.store())).await {
        Ok(Ok(seen)) => Some(Arc::new(seen)),
        Ok(Err(error)) => {
            tracing::debug!(%error, "metrics without what Redis knows");
            None
        }
        Err(_) => {
            tracing::debug!("metrics without what Redis knows: no answer in time");
            None
        }
    };
    *last = Some(Reading { began, seen: seen.clone() });
    seen
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
