//! Each request has an id: its client's, if that is one to write into a log, else one that is made here. The answer
//! carries it, as header and, where it is a problem, in the body; so does each line that is logged while it is served.
//!
//! It is known to whatever runs on the request's behalf without being handed on, and costs no span: a span that a log at
//! `info` has to format would cost every request more than its id does.

use std::task::{Context, Poll};

use axum::http::{HeaderMap, HeaderName, HeaderValue, Request};
use axum::response::Response;
use futures_util::TryFutureExt as _;
use futures_util::future::MapOk;
use serde::{Serialize, Serializer};
use tokio::task::futures::TaskLocalFuture;
use tower::{Layer, Service};

/// The header.
pub(super) const NAME: HeaderName = HeaderName::from_static("x-request-id");
/// A client's own that is longer is not written into logs.
const BYTES: usize = 128;

tokio::task_local! {
    static CURRENT: RequestId;
}

/// The id of a request: 1 to 128 bytes of visible ASCII.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct RequestId(HeaderValue);

impl RequestId {
    /// That of the request on whose behalf this is running, if it is on one's.
    pub fn current() -> Option<Self> {
        CURRENT.try_with(Clone::clone).ok()
    }

    /// One that no other request has.
    pub(super) fn fresh() -> Self {
        let id = uuid::Builder::from_random_bytes(rand::random()).into_uuid();
        let mut text = uuid::Uuid::encode_buffer();
        // Digits and hyphens make a header.
        let header = HeaderValue::from_str(id.as_hyphenated().encode_lower(&mut text));
        RequestId(header.unwrap_or(HeaderValue::from_static("none")))
    }

    /// The one that the client gave its request.
    pub(super) fn given(headers: &HeaderMap) -> Option<Self> {
        let id = headers.get(NAME)?;
        let fits = (1..=BYTES).contains(&id.len()) && id.as_bytes().iter().all(u8::is_ascii_graphic);
        fits.then(|| RequestId(id.clone()))
    }

    /// Does it on behalf of the request that has this id.
    pub(super) fn within<T>(&self, work: impl FnOnce() -> T) -> T {
        CURRENT.sync_scope(self.clone(), work)
    }

    /// Its text.
    pub fn as_str(&self) -> &str {
        self.0.to_str().unwrap_or_default()
    }

    /// As the value of the header.
    pub(super) fn into_header(self) -> HeaderValue {
        self.0
    }
}

impl Serialize for RequestId {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self.as_str())
    }
}

/// Gives requests their ids.
#[derive(Clone, Copy, Debug)]
pub(super) struct RequestIds;

/// A service whose requests have ids.
#[derive(Clone, Debug)]
pub(super) struct Identified<S>(S);

impl<S> Layer<S> for RequestIds {
    type Service = Identified<S>;

    fn layer(&self, inner: S) -> Identified<S> {
        Identified(inner)
    }
}

impl<S, B> Service<Request<B>> for Identified<S>
where
    S: Service<Request<B>, Response = Response>,
{
    type Response = Response;
    type Error = S::Error;
    type Future = TaskLocalFuture<RequestId, MapOk<S::Future, fn(Response) -> Response>>;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        self.0.poll_ready(context)
    }

    fn call(&mut self, request: Request<B>) -> Self::Future {
        let id = RequestId::given(request.headers()).unwrap_or_else(RequestId::fresh);
        let answer = id.within(|| {
            tracing::debug!(method = %request.method(), path = request.uri().path(), "asked");
            self.0.call(request)
        });
        CURRENT.scope(id, answer.map_ok(answered as fn(Response) -> Response))
    }
}

/// Runs on the request's behalf still.
fn answered(mut response: Response) -> Response {
    tracing::debug!(status = response.status().as_u16(), "answered");
    if let Some(id) = RequestId::current() {
        response.headers_mut().insert(NAME, id.into_header());
    }
    response
}

#[cfg(test)]
mod tests {
    use super::*;

    fn given(value: &[u8]) -> Option<RequestId> {
        RequestId::given(&HeaderMap::from_iter([(NAME, HeaderValue::from_bytes(value).unwrap())]))
    }

    #[test]
    fn an_id_of_a_clients_is_taken_if_a_log_may_hold_it() {
        let longest = "x".repeat(BYTES);
        for id in ["1", "a-b_c.d:e/f=", "\"quoted\"", &longest] {
            assert_eq!(given(id.as_bytes()).unwrap().as_str(), id);
        }
        let too_long = "x".repeat(BYTES + 1);
        for id in ["", "a b", "a\tb", "ä", "a\u{a0}b", &too_long] {
            assert_eq!(given(id.as_bytes()), None, "{id:?}");
        }
    }

    #[test]
    fn a_fresh_one_is_nobody_elses_and_known_only_within() {
        let (one, other) = (RequestId::fresh(), RequestId::fresh());
        assert_ne!(one, other);
        assert_eq!(one.as_str().len(), 36);
        assert_eq!(one.within(RequestId::current), Some(one));
        assert_eq!(RequestId::current(), None);
    }
}
