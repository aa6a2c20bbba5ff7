//! Requests, counted by method, route and status, and timed: a layer around the router.
//!
//! All that it raises is made when the server starts, one series for each method of each route, and found by the
//! route's template: a request takes no lock, no memory, and cannot bring a new label value about.

use std::collections::HashMap;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Instant;

use axum::extract::MatchedPath;
use axum::http::{Method, Request, Response};
use axum::routing::MethodRouter;
use pin_project_lite::pin_project;
use tower::{Layer, Service};

use super::super::Api;
use crate::metrics::{Counter, Histogram, LATENCY_BUCKETS, POLL_BUCKETS};

/// The route of what has none.
const UNMATCHED_ROUTE: &str = "unmatched";
/// The method of what is none of the route's.
const OTHER_METHOD: &str = "other";
/// Each status there can be has its counter.
const STATUSES: std::ops::Range<u16> = 100..600;

/// What is known of the requests of one method to one route.
#[derive(Debug)]
pub(super) struct Series {
    pub(super) method: &'static str,
    pub(super) route: &'static str,
    statuses: Box<[Counter]>,
    /// Of requests that did not come to wait for something to happen. Neither has those that failed on our side.
    pub(super) durations: Histogram,
    /// Of those that did.
    pub(super) long_polls: Histogram,
    pub(super) abandoned: Counter,
}

impl Series {
    fn new(method: &'static str, route: &'static str) -> Self {
        let statuses = STATUSES.map(|_| Counter::default()).collect();
        let (durations, long_polls) = (Histogram::new(&LATENCY_BUCKETS), Histogram::new(&POLL_BUCKETS));
        Series { method, route, statuses, durations, long_polls, abandoned: Counter::default() }
    }

    /// How often each status was answered that was answered at all.
    pub(super) fn statuses(&self) -> impl Iterator<Item = (u16, u64)> {
        let counted = STATUSES.zip(self.statuses.iter().map(Counter::read));
        counted.filter(|(_, count)| *count > 0)
    }
}

/// All requests.
#[derive(Debug)]
pub(in crate::api) struct RequestMetrics {
    series: Vec<Series>,
    /// By route: its methods, and where their series stand; last, that of all other methods.
    routes: HashMap<&'static str, Vec<(Option<Method>, usize)>>,
}

impl RequestMetrics {
    /// Of a router with these routes.
    pub(super) fn new(table: &[(Method, &'static str, MethodRouter<Api>)]) -> Self {
        let mut requests =
            RequestMetrics { series: vec![Series::new(OTHER_METHOD, UNMATCHED_ROUTE)], routes: HashMap::new() };
        for (method, route, _) in table {
            let Some(name) = method_name(method) else { continue };
            requests.add_series(Some(method.clone()), name, route);
            // The router answers it as GET without a body.
            if *method == Method::GET {
                requests.add_series(Some(Method::HEAD), "HEAD", route);
            }
        }
        for route in requests.routes.keys().copied().collect::<Vec<_>>() {
            requests.add_series(None, OTHER_METHOD, route);
        }
        requests
    }

    fn add_series(&mut self, method: Option<Method>, name: &'static str, route: &'static str) {
        self.routes.entry(route).or_default().push((method, self.series.len()));
        self.series.push(Series::new(name, route));
    }

    /// Where the series of such requests stands.
    fn series_index(&self, method: &Method, route: Option<&str>) -> usize {
        let methods = route.and_then(|route| self.routes.get(route));
        let found = methods
            .and_then(|methods| methods.iter().find(|(known, _)| known.as_ref().is_none_or(|known| known == method)));
        found.map_or(0, |(_, place)| *place)
    }

    /// All there are.
    pub(super) fn series(&self) -> &[Series] {
        &self.series
    }
}

/// The methods that routes have.
fn method_name(method: &Method) -> Option<&'static str> {
    [
        (Method::GET, "GET"),
        (Method::POST, "POST"),
        (Method::PUT, "PUT"),
        (Method::PATCH, "PATCH"),
        (Method::DELETE, "DELETE"),
    ]
    .into_iter()
    .find_map(|(known, name)| (known == *method).then_some(name))
}

/// Says in a response that its request was willing to wait for it.
#[derive(Clone, Copy, Debug)]
struct IsLongPoll;

/// The request was willing to wait: how long it took says nothing about this server.
pub(in crate::api) fn mark_long_poll<B>(response: &mut Response<B>) {
    response.extensions_mut().insert(IsLongPoll);
}

/// The layer.
#[derive(Clone, Debug)]
pub(in crate::api) struct RequestMetricsLayer(pub(super) Arc<RequestMetrics>);

impl<S> Layer<S> for RequestMetricsLayer {
    type Service = RequestMetricsService<S>;

    fn layer(&self, inner: S) -> RequestMetricsService<S> {
        RequestMetricsService { inner, requests: self.0.clone() }
    }
}

/// A service whose requests are counted.
#[derive(Clone, Debug)]
pub(in crate::api) struct RequestMetricsService<S> {
    inner: S,
    requests: Arc<RequestMetrics>,
}

impl<S, A, B> Service<Request<A>> for RequestMetricsService<S>
where
    S: Service<Request<A>, Response = Response<B>>,
{
    type Response = Response<B>;
    type Error = S::Error;
    type Future = ResponseFuture<S::Future>;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        self.inner.poll_ready(context)
    }

    fn call(&mut self, request: Request<A>) -> Self::Future {
        let route = request.extensions().get::<MatchedPath>().map(MatchedPath::as_str);
        let index = self.requests.series_index(request.method(), route);
        let timer =
            RequestTimer { requests: self.requests.clone(), index, started_at: Instant::now(), answered: false };
        ResponseFuture { inner: self.inner.call(request), timer }
    }
}

pin_project! {
    /// A request that is being answered.
    pub(in crate::api) struct ResponseFuture<F> {
        #[pin]
        inner: F,
        timer: RequestTimer,
    }
}

impl<F, B, E> Future for ResponseFuture<F>
where
    F: Future<Output = Result<Response<B>, E>>,
{
    type Output = F::Output;

    fn poll(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<F::Output> {
        let this = self.project();
        let outcome = std::task::ready!(this.inner.poll(context));
        if let Ok(response) = &outcome {
            this.timer.finish(response);
        }
        Poll::Ready(outcome)
    }
}

/// A request from its beginning. Dropped without an answer, its client has gone, or it was cut off.
struct RequestTimer {
    requests: Arc<RequestMetrics>,
    index: usize,
    started_at: Instant,
    answered: bool,
}

impl RequestTimer {
    fn finish<B>(&mut self, response: &Response<B>) {
        self.answered = true;
        let Some(series) = self.requests.series.get(self.index) else { return };
        let status = response.status();
        if let Some(counter) = series.statuses.get(usize::from(status.as_u16().saturating_sub(STATUSES.start))) {
            counter.inc();
        }
        if status.is_server_error() {
            return;
        }
        match response.extensions().get::<IsLongPoll>() {
            Some(IsLongPoll) => series.long_polls.observe_duration(self.started_at.elapsed()),
            None => series.durations.observe_duration(self.started_at.elapsed()),
        }
    }
}

impl Drop for RequestTimer {
    fn drop(&mut self) {
        if !self.answered
            && let Some(series) = self.requests.series.get(self.index)
        {
            series.abandoned.inc();
        }
    }
}
