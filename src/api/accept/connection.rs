//! One connection, from its first byte to its close.

use std::convert::Infallible;
use std::future::poll_fn;
use std::net::{Shutdown, SocketAddr};
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::Poll;
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use axum::http::{HeaderValue, Method, Version as HttpVersion, header};
use axum::response::Response;
use http_body::Body as _;
use hyper::Request;
use hyper::body::Incoming;
use hyper::server::conn::{http1, http2};
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use tokio::net::TcpStream;
use tokio::time::{Instant, sleep_until, timeout};
use tower::ServiceExt as _;

use super::super::extract::Peer;
use super::super::problem::{Code, Problem};
use super::ServerState;
use super::body::{RequestBody, ResponseBody};
use super::close;
use super::request_head::HeadError;
use super::timeouts::{ConnectionTimeouts, RequestGuard, Timeout};
use super::transport::{GuardedStream, Protocol};

/// What of an unread body the HTTP library may get out of the way by itself.
const MAX_DRAIN_BYTES: u64 = 4096;
/// Over HTTP/2: what may be on its way to us of one body, and of all bodies of a connection.
const H2_STREAM_WINDOW_BYTES: u32 = 64 * 1024;
const H2_CONNECTION_WINDOW_BYTES: u32 = 256 * 1024;
/// Over HTTP/2: what may be on its way from us of one answer.
const H2_SEND_BUFFER_BYTES: usize = 64 * 1024;
/// Over HTTP/2: streams that were reset before anybody looked at them.
const H2_MAX_PENDING_RESETS: usize = 20;
/// Over HTTP/2: how often a client is asked whether it is there, and how long it may take to say so.
const H2_PING_INTERVAL: Duration = Duration::from_secs(20);
/// How long an HTTP/2 connection that was told to end may still take when nothing is under way.
const H2_CLOSE_TIMEOUT: Duration = Duration::from_secs(1);

/// How a connection has ended.
enum ConnectionEnd {
    /// As the protocol has it, or the other side has gone.
    Finished,
    /// Something was due and has not come.
    TimedOut(Timeout, Protocol),
}

/// Serves the connection until it ends, or is cut off.
pub(super) async fn serve(stream: TcpStream, peer: SocketAddr, router: Router, server: Arc<ServerState>) {
    let stream = Arc::new(stream);
    let timeouts = ConnectionTimeouts::new(&server.limits);
    let transport = GuardedStream::new(stream.clone(), timeouts.clone(), server.limits.clone());
    let head_error = transport.head_error();
    let end = tokio::select! {
        end = serve_protocol(transport, peer, router, &timeouts, &server) => end,
        () = server.shutdown.aborting.cancelled() => return,
    };
    let response = final_response(&server, &end, head_error.get());
    match end {
        // What it did not read is not kept for it.
        ConnectionEnd::TimedOut(Timeout::Write, _) => drop(stream.set_zero_linger()),
        ConnectionEnd::TimedOut(Timeout::ConnectIdle | Timeout::Idle, _) => {}
        ConnectionEnd::TimedOut(Timeout::Head | Timeout::MaxAge, _) | ConnectionEnd::Finished => {
            tokio::select! {
                () = close::lingering_close(&stream, response.as_deref().unwrap_or_default()) => {}
                () = server.shutdown.aborting.cancelled() => {}
            }
        }
    }
}

/// Counts what was wrong, and says it where the protocol has words for it.
fn final_response(server: &ServerState, end: &ConnectionEnd, head_error: Option<&HeadError>) -> Option<Vec<u8>> {
    let metrics = &server.metrics;
    let problem = match (end, head_error) {
        (_, Some(HeadError::Malformed(detail))) => {
            metrics.heads_malformed.inc();
            Problem::new(Code::MalformedRequest, *detail)
        }
        (_, Some(HeadError::TooLarge(detail))) => {
            metrics.heads_too_large.inc();
            Problem::new(Code::HeadTooLarge, *detail)
        }
        (ConnectionEnd::TimedOut(Timeout::Head, version), None) => {
            metrics.closed_slow_head.inc();
            if *version == Protocol::Http2 {
                return None;
            }
            Problem::new(Code::RequestTimeout, "the head of the request did not arrive in time")
        }
        (ConnectionEnd::TimedOut(timeout, _), None) => {
            match timeout {
                Timeout::ConnectIdle => metrics.closed_silent.inc(),
                Timeout::Idle => metrics.closed_idle.inc(),
                Timeout::Write => metrics.closed_unread.inc(),
                Timeout::Head | Timeout::MaxAge => {}
            }
            return None;
        }
        (ConnectionEnd::Finished, None) => return None,
    };
    Some(close::encode_problem(problem))
}

async fn serve_protocol(
    mut transport: GuardedStream,
    peer: SocketAddr,
    router: Router,
    timeouts: &Arc<ConnectionTimeouts>,
    server: &Arc<ServerState>,
) -> ConnectionEnd {
    let detected =
        run_until_timeout(pin!(transport.detect_protocol()), timeouts, server, |_| timeouts.close_when_idle()).await;
    let protocol = match detected {
        Ok(Some(protocol)) => protocol,
        Ok(None) => return ConnectionEnd::Finished,
        Err(timeout) => return ConnectionEnd::TimedOut(timeout, Protocol::Http1),
    };
    let service = {
        let (timeouts, server) = (timeouts.clone(), server.clone());
        service_fn(move |request| handle(request, peer, router.clone(), timeouts.begin_request(), server.clone()))
    };
    let io = TokioIo::new(transport);
    let result = match protocol {
        Protocol::Http1 => {
            let mut builder = http1::Builder::new();
            // Heads that are too slow or too large do not come this far.
            builder.header_read_timeout(None).max_headers(server.limits.max_headers);
            builder.max_buf_size(server.limits.max_head_bytes.max(64 * 1024)).timer(TokioTimer::new());
            let connection = pin!(builder.serve_connection(io, service));
            run_until_timeout(connection, timeouts, server, |_| timeouts.close_when_idle()).await
        }
        // Apart, because it is much larger, and connections that wait over HTTP/1 are many.
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
            tracing::debug!(%error, %peer, "a connection broke");
            ConnectionEnd::Finished
        }
        Err(timeout) => {
            tracing::debug!(?timeout, %peer, "a connection is closed");
            ConnectionEnd::TimedOut(timeout, protocol)
        }
    }
}

/// Runs `connection` as long as nothing is overdue, and asks it once to end: when it is old, or the server closing.
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
            // One timer for all: it is set again when it has gone off too early, or would go off too late.
            loop {
                let Some((deadline, timeout)) = timeouts.next_timeout(context.waker()) else { return Poll::Pending };
                if deadline <= Instant::now() {
                    if timeout != Timeout::MaxAge {
                        return Poll::Ready(Err(timeout));
                    }
                    server.metrics.ended_by_age.inc();
                    is_close_requested = true;
                    timeouts.clear_max_age();
                    request_close(connection.as_mut());
                    break;
                }
                if timer_deadline.is_none_or(|current| deadline < current) {
                    timer.as_mut().reset(deadline);
                    timer_deadline = Some(deadline);
                }
                if timer.as_mut().poll(context).is_pending() {
                    return Poll::Pending;
                }
                timer_deadline = None;
            }
        }
    })
    .await
}

/// Has the router answer a request.
async fn handle(
    request: Request<Incoming>,
    peer: SocketAddr,
    router: Router,
    guard: RequestGuard,
    server: Arc<ServerState>,
) -> Result<hyper::Response<ResponseBody>, Infallible> {
    let is_http1 = request.version() < HttpVersion::HTTP_2;
    // A body that must not be waited for, or that has too much left to be read past.
    let may_exceed_drain_limit = request.body().size_hint().upper().is_none_or(|upper| upper > MAX_DRAIN_BYTES);
    let has_body = request.method() == Method::POST || is_http1;
    let (mut parts, body) = request.into_parts();
    parts.extensions.insert(Peer(peer));
    // Only what is posted is read. Over HTTP/2 the rest would be kept until the answer.
    let fully_read = may_exceed_drain_limit.then(Arc::<AtomicBool>::default);
    let body =
        if has_body { Body::new(RequestBody::new(body, &server.limits, fully_read.clone())) } else { Body::empty() };
    let response: Response = match router.oneshot(Request::from_parts(parts, body)).await {
        Ok(response) => response,
        Err(never) => match never {},
    };
    let has_unread_body = fully_read.is_some_and(|fully_read| !fully_read.load(Ordering::Relaxed));
    let (mut parts, body) = response.into_parts();
    if is_http1 && (has_unread_body || server.is_stopping() || guard.is_last()) {
        parts.headers.insert(header::CONNECTION, HeaderValue::from_static("close"));
    }
    Ok(hyper::Response::from_parts(parts, ResponseBody::new(body, guard)))
}

/// Nothing more goes out.
pub(super) fn shutdown_write(stream: &TcpStream) {
    let _ = socket2::SockRef::from(stream).shutdown(Shutdown::Write);
}
