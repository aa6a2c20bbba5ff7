//! Serves a connection, from its first byte to its close.

use std::convert::Infallible;
use std::future::poll_fn;
use std::net::SocketAddr;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Poll, ready};
use std::time::Duration;

use axum::body::Body;
use axum::http::{HeaderValue, Method, Version, header};
use axum::response::Response;
use http_body::Body as _;
use hyper::Request;
use hyper::body::Incoming;
use hyper::server::conn::{http1, http2};
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use tokio::time::{Instant, sleep_until, timeout};

use super::body::{RequestBody, ResponseBody};
use super::close::lingering_close;
use super::rejection::Rejection;
use super::request_head::HeadError;
use super::socket::ClientStream;
use super::state::ServerState;
use super::timeouts::{ConnectionTimeouts, RequestGuard, Timeout};
use super::transport::{GuardedStream, Protocol};

/// Bytes of an unread request body that the HTTP library may read and discard to keep the connection.
const MAX_DRAIN_BYTES: u64 = 4096;
/// HTTP/2 flow control: bytes of one request body, and of all request bodies of a connection, that may be in flight.
const H2_STREAM_WINDOW_BYTES: u32 = 64 * 1024;
const H2_CONNECTION_WINDOW_BYTES: u32 = 256 * 1024;
/// HTTP/2: bytes of one response that are buffered before they are sent.
const H2_SEND_BUFFER_BYTES: usize = 64 * 1024;
/// HTTP/2: streams that were reset before the server accepted them. More close the connection.
const H2_MAX_PENDING_RESETS: usize = 20;
/// HTTP/2: time between two pings, and time that a client has to answer one.
const H2_PING_INTERVAL: Duration = Duration::from_secs(20);
/// HTTP/2: time that an idle connection has to end after GOAWAY.
const H2_CLOSE_TIMEOUT: Duration = Duration::from_secs(1);

/// The client's address. The server adds it to the extensions of each request.
#[derive(Clone, Copy, Debug)]
pub struct Peer(pub SocketAddr);

/// Answers requests. A clone answers those of one connection.
pub trait Responder: Clone + Send + Sync + 'static {
    /// Returns the response to a request.
    fn respond(&self, request: Request<Body>) -> impl Future<Output = Response> + Send;
}

/// How a connection has ended.
enum ConnectionEnd {
    /// By the protocol, or because the peer has gone.
    Finished,
    /// By a timeout.
    TimedOut(Timeout, Protocol),
}

/// Serves the connection until it ends.
pub(super) async fn serve<S: ClientStream>(
    stream: S,
    peer: SocketAddr,
    responder: impl Responder,
    server: Arc<ServerState>,
) {
    let timeouts = ConnectionTimeouts::new(&server.limits);
    let transport = GuardedStream::new(stream, timeouts.clone(), server.limits.clone());
    let mut io = TokioIo::new(transport);
    let end = serve_protocol(&mut io, peer, responder, &timeouts, &server).await;
    let (mut stream, head_error) = io.into_inner().into_parts();
    let response = final_response(&server, &end, head_error).unwrap_or_default();
    match end {
        // The client does not read. A reset frees the socket's buffer at once.
        ConnectionEnd::TimedOut(Timeout::Write, _) => stream.set_zero_linger(),
        ConnectionEnd::TimedOut(Timeout::ConnectIdle | Timeout::Idle, _) => {}
        ConnectionEnd::TimedOut(Timeout::Head | Timeout::MaxAge, _) | ConnectionEnd::Finished => {
            lingering_close(&mut stream, &response).await;
        }
    }
}

/// Counts why the connection ended. Returns a last response if the protocol allows one.
fn final_response(server: &ServerState, end: &ConnectionEnd, head_error: Option<HeadError>) -> Option<Vec<u8>> {
    if let Some(error) = head_error {
        return Some(server.encode_rejection(server.reject(error.into())));
    }
    let ConnectionEnd::TimedOut(timeout, protocol) = *end else { return None };
    server.metrics.count_closed(timeout);
    let is_answered = timeout == Timeout::Head && protocol == Protocol::Http1;
    is_answered.then(|| server.encode_rejection(Rejection::HeadTimeout))
}

async fn serve_protocol<S: ClientStream>(
    io: &mut TokioIo<GuardedStream<S>>,
    peer: SocketAddr,
    responder: impl Responder,
    timeouts: &Arc<ConnectionTimeouts>,
    server: &Arc<ServerState>,
) -> ConnectionEnd {
    let detected = {
        let detection = pin!(io.inner_mut().detect_protocol());
        run_until_timeout(detection, timeouts, server, |_| timeouts.close_when_idle()).await
    };
    let protocol = match detected {
        Ok(Some(protocol)) => protocol,
        Ok(None) => return ConnectionEnd::Finished,
        Err(timeout) => return ConnectionEnd::TimedOut(timeout, Protocol::Http1),
    };
    let service = {
        let (timeouts, server) = (timeouts.clone(), server.clone());
        service_fn(move |request| handle(request, peer, responder.clone(), timeouts.begin_request(), server.clone()))
    };
    let result = match protocol {
        Protocol::Http1 => {
            let mut builder = http1::Builder::new();
            // The transport rejects a slow or large head before the library sees it.
            builder.header_read_timeout(None).max_headers(server.limits.max_headers);
            builder.max_buf_size(server.limits.max_head_bytes.max(64 * 1024)).timer(TokioTimer::new());
            let connection = pin!(builder.serve_connection(io, service));
            run_until_timeout(connection, timeouts, server, |_| timeouts.close_when_idle()).await
        }
        // Boxed because it is much larger: the many HTTP/1 connections that wait should not pay for it.
        Protocol::Http2 => {
            Box::pin(async {
                let mut builder = http2::Builder::new(TokioExecutor::new());
                builder
                    .timer(TokioTimer::new())
                    .max_concurrent_streams(server.limits.http2_max_streams)
                    .max_header_list_size(u32::try_from(server.limits.max_head_bytes).unwrap_or(u32::MAX))
                    .max_pending_accept_reset_streams(H2_MAX_PENDING_RESETS)
                    .initial_stream_window_size(H2_STREAM_WINDOW_BYTES)
                    .initial_connection_window_size(H2_CONNECTION_WINDOW_BYTES)
                    .max_send_buf_size(H2_SEND_BUFFER_BYTES)
                    .keep_alive_interval(H2_PING_INTERVAL)
                    .keep_alive_timeout(H2_PING_INTERVAL);
                let mut connection = pin!(builder.serve_connection(io, service));
                let request_close = |connection: Pin<&mut http2::Connection<_, _, _>>| connection.graceful_shutdown();
                let result = run_until_timeout(connection.as_mut(), timeouts, server, request_close).await;
                if let Err(Timeout::Idle) = result {
                    connection.as_mut().graceful_shutdown();
                    let _ = timeout(H2_CLOSE_TIMEOUT, connection).await;
                }
                result
            })
            .await
        }
    };
    match result {
        Ok(Ok(())) => ConnectionEnd::Finished,
        Ok(Err(error)) => {
            tracing::debug!(%error, %peer, "connection failed");
            ConnectionEnd::Finished
        }
        Err(timeout) => {
            tracing::debug!(?timeout, %peer, "connection closed by a timeout");
            ConnectionEnd::TimedOut(timeout, protocol)
        }
    }
}

/// Runs `connection` until it ends or a timeout expires. Calls `request_close` once: when the connection reaches its
/// maximum age, or the server closes.
///
/// # Errors
/// The timeout that expired.
async fn run_until_timeout<C: Future>(
    mut connection: Pin<&mut C>,
    timeouts: &ConnectionTimeouts,
    server: &ServerState,
    request_close: impl Fn(Pin<&mut C>),
) -> Result<C::Output, Timeout> {
    let mut closing = pin!(server.shutdown.closing.cancelled());
    let mut is_close_requested = false;
    let mut timer = pin!(sleep_until(Instant::now()));
    let mut timer_deadline: Option<Instant> = None;
    poll_fn(|context| {
        if !is_close_requested && closing.as_mut().poll(context).is_ready() {
            is_close_requested = true;
            timeouts.clear_max_age();
            request_close(connection.as_mut());
        }
        loop {
            if let Poll::Ready(output) = connection.as_mut().poll(context) {
                return Poll::Ready(Ok(output));
            }
            // A single timer serves all timeouts. It may fire too early, for a deadline that has moved, but never too late. The
            // clock is read only when it fires.
            loop {
                let Some((deadline, timeout)) = timeouts.next_timeout(context.waker()) else { return Poll::Pending };
                if timer_deadline.is_none_or(|current| deadline < current) {
                    timer.as_mut().reset(deadline);
                    timer_deadline = Some(deadline);
                }
                ready!(timer.as_mut().poll(context));
                timer_deadline = None;
                if deadline > Instant::now() {
                    continue;
                }
                if timeout != Timeout::MaxAge {
                    return Poll::Ready(Err(timeout));
                }
                server.metrics.count_closed(timeout);
                is_close_requested = true;
                timeouts.clear_max_age();
                request_close(connection.as_mut());
                break;
            }
        }
    })
    .await
}

/// Has the request answered. Closes an HTTP/1 connection after the response if too much of the request body is
/// unread, the server stops, or the connection should close.
async fn handle(
    request: Request<Incoming>,
    peer: SocketAddr,
    responder: impl Responder,
    guard: RequestGuard,
    server: Arc<ServerState>,
) -> Result<hyper::Response<ResponseBody>, Infallible> {
    let is_http1 = request.version() < Version::HTTP_2;
    let may_exceed_drain_limit = request.body().size_hint().upper().is_none_or(|upper| upper > MAX_DRAIN_BYTES);
    // Only POST requests have a body that handlers read. An unread HTTP/2 body would be kept until the response.
    let has_body = request.method() == Method::POST || is_http1;
    let (mut parts, body) = request.into_parts();
    parts.extensions.insert(Peer(peer));
    parts.extensions.insert(guard.long_poll());
    let fully_read = may_exceed_drain_limit.then(Arc::<AtomicBool>::default);
    let body =
        if has_body { Body::new(RequestBody::new(body, &server.limits, fully_read.clone())) } else { Body::empty() };
    let response = responder.respond(Request::from_parts(parts, body)).await;
    let has_unread_body = fully_read.is_some_and(|fully_read| !fully_read.load(Ordering::Relaxed));
    let (mut parts, body) = response.into_parts();
    if is_http1 && (has_unread_body || server.is_stopping() || guard.is_last()) {
        parts.headers.insert(header::CONNECTION, HeaderValue::from_static("close"));
    }
    Ok(hyper::Response::from_parts(parts, ResponseBody::new(body, guard)))
}
