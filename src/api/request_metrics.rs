//! Counts and times requests by method, route and status.
//!
//! All series are created at start, one for each method of each route, and the router knows their indexes. So a request
//! takes no lock, allocates nothing and cannot create a label value.

use std::time::Instant;

use axum::http::{Method, Response};

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
}

impl RequestMetrics {
    /// The index of the series of requests that match no route.
    pub(super) const UNMATCHED: usize = 0;

    /// Creates the series of a router with these routes.
    pub fn new<E>(routes: &[(Method, &'static str, E)]) -> Self {
        let mut series = vec![Series::new(OTHER_METHOD, UNMATCHED_ROUTE, false)];
        for (method, route, _) in routes {
            series.push(Series::new(method_name(method), route, true));
            // The router answers HEAD as GET without a body.
            if *method == Method::GET {
                series.push(Series::new(method_name(&Method::HEAD), route, false));
            }
            if !series.iter().any(|series| series.route == *route && series.method == OTHER_METHOD) {
                series.push(Series::new(OTHER_METHOD, route, false));
            }
        }
        RequestMetrics { series }
    }

    /// Returns the index of the series of a method of a route; `None`: of all methods that the route does not have.
    pub(super) fn series_index(&self, method: Option<&Method>, route: &str) -> usize {
        let name = method.map_or(OTHER_METHOD, method_name);
        let position = self.series.iter().position(|series| series.route == route && series.method == name);
        position.unwrap_or(Self::UNMATCHED)
    }

    /// Starts the timer of a request that the series with this index counts.
    pub(super) fn start(&self, index: usize) -> RequestTimer<'_> {
        RequestTimer { series: self.series.get(index), started_at: Instant::now(), is_answered: false }
    }

    pub(super) fn series(&self) -> &[Series] {
        &self.series
    }
}

/// The label of a method.
fn method_name(method: &Method) -> &'static str {
    match *method {
        Method::GET => "GET",
        Method::HEAD => "HEAD",
        Method::POST => "POST",
        Method::PUT => "PUT",
        Method::PATCH => "PATCH",
        Method::DELETE => "DELETE",
        _ => OTHER_METHOD,
    }
}

/// Marks a response to a long poll.
#[derive(Clone, Copy, Debug)]
struct IsLongPoll;

/// Marks the response to a request with a wait time above zero. Its duration depends on the tasks, not on the server.
pub(super) fn mark_long_poll<B>(response: &mut Response<B>) {
    response.extensions_mut().insert(IsLongPoll);
}

/// Times a request from its head on. Dropped before a response, it counts the request as abandoned.
pub(super) struct RequestTimer<'a> {
    series: Option<&'a Series>,
    started_at: Instant,
    is_answered: bool,
}

impl RequestTimer<'_> {
    /// Counts the response.
    pub(super) fn finish<B>(mut self, response: &Response<B>) {
        self.is_answered = true;
        let Some(series) = self.series else { return };
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

impl Drop for RequestTimer<'_> {
    fn drop(&mut self) {
        if !self.is_answered
            && let Some(series) = self.series
        {
            series.abandoned.inc();
        }
    }
}
