//! Writes JSON responses.

use std::pin::Pin;
use std::task::{Context, Poll};

use axum::body::Body;
use axum::http::{HeaderValue, StatusCode, header};
use axum::response::Response;
use bytes::Bytes;
use http_body::{Frame, SizeHint};
use serde::Serialize;

use crate::dispatch::Delivery;

/// Capacity in which most responses with one task fit, so that their buffer does not grow.
const TYPICAL_BYTES: usize = 1024;

/// Returns a response with `value` as JSON.
pub(super) fn json(status: StatusCode, value: &impl Serialize) -> Response {
    let mut response = Response::new(Body::from(encode(value)));
    *response.status_mut() = status;
    response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
    response
}

/// Returns a 200 with `value` as JSON.
pub(super) fn ok(value: &impl Serialize) -> Response {
    json(StatusCode::OK, value)
}

/// Returns a 200 with JSON that contains the tasks of `delivery`. They count as delivered when the connection takes
/// these bytes. If the client has disconnected by then, their leases are released.
pub(super) fn delivery_response(json: Bytes, delivery: Delivery) -> Response {
    let body = DeliveryBody { bytes: Some(json), delivery };
    let mut response = Response::new(Body::new(body));
    response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
    response
}

/// Encodes `value` as JSON. A newline follows, so that a terminal shows its prompt on the next line.
pub(super) fn encode(value: &impl Serialize) -> Bytes {
    let mut json = Vec::with_capacity(TYPICAL_BYTES);
    // The types of this program have string keys and serialize without errors.
    if serde_json::to_writer(&mut json, value).is_err() {
        json.clear();
    }
    json.push(b'\n');
    json.into()
}

struct DeliveryBody {
    bytes: Option<Bytes>,
    delivery: Delivery,
}

impl http_body::Body for DeliveryBody {
    type Data = Bytes;
    type Error = std::convert::Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        _context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Self::Error>>> {
        self.delivery.mark_delivered();
        Poll::Ready(self.bytes.take().map(|bytes| Ok(Frame::data(bytes))))
    }

    fn is_end_stream(&self) -> bool {
        self.bytes.is_none()
    }

    fn size_hint(&self) -> SizeHint {
        SizeHint::with_exact(self.bytes.as_ref().map_or(0, |bytes| bytes.len() as u64))
    }
}
