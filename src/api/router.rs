//! Answers requests: passes each to the handler of its route, and does for all what they have in common.
//!
//! From the outside in, a request gets its id, is counted and timed, is checked for a page of another site, and reaches
//! its handler. Nothing but this file decides that, and no part of it is boxed except the handler's future.

use std::pin::{Pin, pin};
use std::sync::Arc;

use axum::body::Body;
use axum::extract::Request;
use axum::handler::Handler;
use axum::http::{HeaderValue, Method, header};
use axum::response::{IntoResponse as _, Response};
use futures_util::FutureExt as _;
use http_body::Body as _;
use tower::{Layer as _, Service as _, service_fn};
use tower_http::compression::CompressionLayer;
use tower_http::csrf::{CsrfLayer, ProtectionError};

use super::extract::PathParameter;
use super::problem::{Code, Problem};
use super::request_id::{self, RequestId};
use super::request_metrics::RequestMetrics;
use super::state::Api;
use crate::http_server::Responder;

type ResponseFuture = Pin<Box<dyn Future<Output = Response> + Send>>;

/// Calls the handler of a route.
pub type Endpoint = Arc<dyn Fn(Request, Api) -> ResponseFuture + Send + Sync>;

/// Returns the endpoint of a handler.
pub(super) fn endpoint<T, H>(handler: H) -> Endpoint
where
    H: Handler<T, Api, Future = ResponseFuture>,
{
    Arc::new(move |request, api| handler.clone().call(request, api))
}

/// Returns the endpoint of a handler whose responses are compressed for clients that accept it.
pub(super) fn compressed<T, H>(handler: H) -> Endpoint
where
    H: Handler<T, Api> + Copy,
    T: 'static,
{
    Arc::new(move |request, api| Box::pin(handler.layer(CompressionLayer::new()).call(request, api)))
}

/// A path with its methods.
struct Path {
    template: &'static str,
    /// The template up to its parameter, or all of it.
    prefix: &'static str,
    /// The template behind its parameter. `None`: it has none.
    suffix: Option<&'static str>,
    methods: Vec<(Method, Target)>,
    /// For all other methods.
    other_methods: Target,
}

/// Where a request goes.
#[derive(Clone)]
struct Target {
    endpoint: Endpoint,
    /// The index of the series that counts it.
    series: usize,
}

/// The routes of a server.
pub struct Router {
    api: Api,
    /// Those without a parameter come first: they have precedence.
    paths: Vec<Path>,
    unmatched: Target,
    csrf: CsrfLayer<fn(ProtectionError) -> Response>,
}

impl std::fmt::Debug for Router {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Router")
    }
}

impl Path {
    fn new(template: &'static str, methods: Vec<(Method, Target)>, other_methods: Target) -> Self {
        let parameter = template.split_once('{').and_then(|(prefix, rest)| Some((prefix, rest.split_once('}')?.1)));
        let (prefix, suffix) = parameter.map_or((template, None), |(prefix, suffix)| (prefix, Some(suffix)));
        Path { template, prefix, suffix, methods, other_methods }
    }

    /// Returns the parameter of a path that matches, and `None` if it does not.
    fn matched<'p>(&self, path: &'p str) -> Option<Option<&'p str>> {
        match self.suffix {
            None => (path == self.prefix).then_some(None),
            Some(suffix) => {
                let value = path.strip_prefix(self.prefix)?.strip_suffix(suffix)?;
                let is_missing = value.is_empty() && suffix.is_empty();
                (!is_missing && !value.contains('/')).then_some(Some(value))
            }
        }
    }

    fn allow(&self) -> Option<HeaderValue> {
        let methods: Vec<&str> = self.methods.iter().map(|(method, _)| method.as_str()).collect();
        HeaderValue::from_str(&methods.join(",")).ok()
    }
}

impl Router {
    /// Returns the router of these routes: method, path and endpoint of each.
    pub fn new(api: Api, routes: Vec<(Method, &'static str, Endpoint)>) -> Self {
        let series = |method: Option<&Method>, template: &str| api.request_metrics.series_index(method, template);
        let method_not_allowed =
            endpoint(async || Problem::new(Code::MethodNotAllowed, "the Allow header lists the methods of this path"));
        let mut paths: Vec<Path> = Vec::new();
        for (method, template, endpoint) in routes {
            let target = Target { endpoint, series: series(Some(&method), template) };
            // A response to HEAD is that to GET, without its body.
            let head = (method == Method::GET)
                .then(|| (Method::HEAD, Target { series: series(Some(&Method::HEAD), template), ..target.clone() }));
            let methods = [(method, target)].into_iter().chain(head);
            match paths.iter_mut().find(|path| path.template == template) {
                Some(path) => path.methods.extend(methods),
                None => {
                    let other_methods = Target { endpoint: method_not_allowed.clone(), series: series(None, template) };
                    paths.push(Path::new(template, methods.collect(), other_methods));
                }
            }
        }
        paths.sort_by_key(|path| path.suffix.is_some());
        let not_found = async || Problem::new(Code::RouteNotFound, "GET /docs lists all routes");
        let unmatched = Target { endpoint: endpoint(not_found), series: RequestMetrics::UNMATCHED };
        Router { api, paths, unmatched, csrf: CsrfLayer::new().with_rejection_response(reject_cross_site) }
    }

    async fn route(&self, mut request: Request) -> Response {
        let (method, path) = (request.method(), request.uri().path());
        tracing::debug!(%method, path, "request received");
        let is_head = method == Method::HEAD;
        let (mut target, mut allow, mut parameter) = (&self.unmatched, None, None);
        if let Some((path, value)) = self.paths.iter().find_map(|known| Some((known, known.matched(path)?))) {
            let found = path.methods.iter().find(|(known, _)| known == method);
            target = found.map_or(&path.other_methods, |(_, target)| target);
            allow = found.is_none().then(|| path.allow()).flatten();
            parameter = value.map(|value| PathParameter(value.to_owned()));
        }
        let timer = self.api.request_metrics.start(target.series);
        if let Some(parameter) = parameter {
            request.extensions_mut().insert(parameter);
        }
        let handler = service_fn(|request| (target.endpoint)(request, self.api.clone()).never_error());
        let Ok(mut response) = self.csrf.layer(handler).call(request).await;
        if let Some(allow) = allow {
            response.headers_mut().insert(header::ALLOW, allow);
        }
        if is_head {
            remove_body(&mut response);
        }
        timer.finish(&response);
        tracing::debug!(status = response.status().as_u16(), "response ready");
        response
    }
}

impl Responder for Arc<Router> {
    async fn respond(&self, request: Request) -> Response {
        let id = RequestId::of(request.headers());
        let mut routed = pin!(id.scope_future(self.route(request)));
        let mut response = routed.as_mut().await;
        if let Some(id) = routed.take_value() {
            response.headers_mut().insert(request_id::HEADER, id.into_header());
        }
        response
    }
}

/// Rejects a request that a page of another site makes through a browser that can reach this server.
fn reject_cross_site(_: ProtectionError) -> Response {
    Problem::new(Code::CrossSite, "a browser may send this request only from a page of this server").into_response()
}

/// Makes the response to GET the response to HEAD.
fn remove_body(response: &mut Response) {
    if let Some(length) = response.body().size_hint().exact() {
        response.headers_mut().entry(header::CONTENT_LENGTH).or_insert(HeaderValue::from(length));
    }
    *response.body_mut() = Body::empty();
}
