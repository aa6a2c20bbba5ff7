//! The problems of the HTTP server's rejections.

use axum::http::Response;
use axum::response::IntoResponse as _;
use bytes::Bytes;

use super::problem::{Code, Problem};
use super::request_id::{self, RequestId};
use crate::http_server::Rejection;

impl From<Rejection> for Problem {
    fn from(rejection: Rejection) -> Self {
        let code = match rejection {
            Rejection::MaxConnections | Rejection::MaxConnectionsPerAddress => Code::TooManyConnections,
            Rejection::MalformedHead(_) => Code::MalformedRequest,
            Rejection::HeadTooLarge(_) => Code::HeadTooLarge,
            Rejection::HeadTimeout | Rejection::BodyTooSlow => Code::RequestTimeout,
            Rejection::BodyMemory => Code::Overloaded,
        };
        Problem::new(code, rejection.to_string())
    }
}

/// Returns the response to a connection or request that does not reach the router, with a request id of its own.
pub fn render_rejection(rejection: Rejection) -> Response<Bytes> {
    let id = RequestId::generate();
    let problem = Problem::from(rejection);
    let body = id.scope(|| problem.to_json());
    let mut response = problem.into_response().map(|_| body);
    response.headers_mut().insert(request_id::HEADER, id.into_header());
    response
}
