//! Counts and times requests by method, route and status: a layer around the router.
//!
//! All series are created at start, one for each method of each route, and looked up by the route's template. So a
//! request takes no lock, allocates nothing and cannot create a label value.

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

use crate::metrics::{Counter, Histogram, LATENCY_BUCKETS, POLL_BUCKETS};

/// The `route` label of requests that match no route.
const UNMATCHED_ROUTE: &str = "unmatched";
/// The `method` label of methods that the route does not have.
const OTHER_METHOD: &str = "other";
/// Statuses that have a counter.
const STATUSES: std::ops::Range<u16> = 100..600;

/// Failures that are shown before they occur. A rate is computed between two readings, so that failures that all occur
/// between a series' absence and its first reading would not show.
const FAILURES: [u16; 2] = [500, 503];
/// The same of a submit: Redis has no memory left.
const SUBMIT_FAILURE: u16 = 507;

/// Metrics of one method of one route.
#[derive(Debug)]
pub(super) struct Series {
    pub(super) method: &'static str,
    pub(super) route: &'static str,
    /// Whether the route has this method.
    is_declared: bool,
    statuses: Box<[Counter]>,
    /// Durations of requests that were not long polls. Server errors are left out.
    pub(super) durations: Histogram,
    /// Durations of long polls. Server errors are left out.
    pub(super) long_polls: Histogram,
    abandoned: Counter,
}

impl Series {
    fn new(method: &'static str, route: &'static str, is_declared: bool) -> Self {
        let statuses = STATUSES.map(|_| Counter::default()).collect();
        let (durations, long_polls) = (Histogram::new(&LATENCY_BUCKETS), Histogram::new(&POLL_BUCKETS));
        Series { method, route, is_declared, statuses, durations, long_polls, abandoned: Counter::default() }
    }

    /// Each status with at least one response, and the failures of a method that the route has, with its number of
    /// responses.
    pub(super) fn statuses(&self) -> impl Iterator<Item = (u16, u64)> {
        let is_submit = self.method == "POST" && matches!(self.route, "/tasks" | "/tasks/batch");
        let is_shown = move |status| FAILURES.contains(&status) || is_submit && status == SUBMIT_FAILURE;
        let counted = STATUSES.zip(self.statuses.iter().map(Counter::read));
        counted.filter(move |(status, count)| *count > 0 || self.is_declared && is_shown(*status))
    }

    /// The requests without a response. `None`: there was none, and the route does not have this method.
    pub(super) fn abandoned(&self) -> Option<u64> {
        Some(self.abandoned.read()).filter(|count| *count > 0 || self.is_declared)
    }
}

/// Metrics of all requests.
#[derive(Debug)]
pub struct RequestMetrics {
    series: Vec<Series>,
    /// By route: the index of each method's series. The last entry, `None`, is for all other methods.
    routes: HashMap<&'static str, Vec<(Option<Method>, usize)>>,
}

impl RequestMetrics {
    /// Creates the series of a router with these routes.
    pub fn new<S>(routes: &[(Method, &'static str, MethodRouter<S>)]) -> Self {
        let unmatched = Series::new(OTHER_METHOD, UNMATCHED_ROUTE, false);
        let mut metrics = RequestMetrics { series: vec![unmatched], routes: HashMap::new() };
        for (method, route, _) in routes {
            let Some(name) = method_name(method) else { continue };
            metrics.add_series(Some(method.clone()), name, route);
            // The router answers HEAD as GET without a body.
            if *method == Method::GET {
                metrics.add_series(Some(Method::HEAD), "HEAD", route);
            }
        }
        for route in metrics.routes.keys().copied().collect::<Vec<_>>() {
            metrics.add_series(None, OTHER_METHOD, route);
        }
        metrics
    }

    fn add_series(&mut self, method: Option<Method>, name: &'static str, route: &'static str) {
        self.routes.entry(route).or_default().push((method, self.series.len()));
        let is_declared = name != OTHER_METHOD && name != "HEAD";
        self.series.push(Series::new(name, route, is_declared));
    }

    fn series_index(&self, method: &Method, route: Option<&str>) -> usize {
        let methods = route.and_then(|route| self.routes.get(route));
        let found = methods
            .and_then(|methods| methods.iter().find(|(known, _)| known.as_ref().is_none_or(|known| known == method)));
        found.map_or(0, |(_, index)| *index)
    }

    pub(super) fn series(&self) -> &[Series] {
        &self.series
    }
}

/// The label of a method that a route can have.
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

/// Marks a response to a long poll.
#[derive(Clone, Copy, Debug)]
struct IsLongPoll;

/// Marks the response to a request with a wait time above zero. Its duration depends on the tasks, not on the server.
pub(super) fn mark_long_poll<B>(response: &mut Response<B>) {
    response.extensions_mut().insert(IsLongPoll);
}

/// The layer that counts and times requests.
#[derive(Clone, Debug)]
pub(super) struct RequestMetricsLayer(pub(super) Arc<RequestMetrics>);

impl<S> Layer<S> for RequestMetricsLayer {
    type Service = RequestMetricsService<S>;

    fn layer(&self, inner: S) -> RequestMetricsService<S> {
        RequestMetricsService { inner, metrics: self.0.clone() }
    }
}

/// A service whose requests are counted and timed.
#[derive(Clone, Debug)]
pub(super) struct RequestMetricsService<S> {
    inner: S,
    metrics: Arc<RequestMetrics>,
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
        let index = self.metrics.series_index(request.method(), route);
        let timer =
            RequestTimer { metrics: self.metrics.clone(), index, started_at: Instant::now(), is_answered: false };
        ResponseFuture { inner: self.inner.call(request), timer }
    }
}

pin_project! {
    /// The future of a response, with the timer of its request.
    pub(super) struct ResponseFuture<F> {
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

/// Times a request from its head on. Dropped before a response, it counts the request as abandoned.
struct RequestTimer {
    metrics: Arc<RequestMetrics>,
    index: usize,
    started_at: Instant,
    is_answered: bool,
}

impl RequestTimer {
    fn finish<B>(&mut self, response: &Response<B>) {
        self.is_answered = true;
        let Some(series) = self.metrics.series.get(self.index) else { return };
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
        if !self.is_answered
            && let Some(series) = self.metrics.series.get(self.index)
        {
            series.abandoned.inc();
        }
    }
}
