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
use super::Door;
use super::body::{Arriving, Leaving};
use super::farewell;
use super::head::Flaw;
use super::pace::{Due, Pace, Turn};
use super::wire::{Version, Wire};

/// What of an unread body the HTTP library may get out of the way by itself.
const SMALL_REST: u64 = 4096;
/// Over HTTP/2: what may be on its way to us of one body, and of all bodies of a connection.
const STREAM_WINDOW: u32 = 64 * 1024;
const CONNECTION_WINDOW: u32 = 256 * 1024;
/// Over HTTP/2: what may be on its way from us of one answer.
const SEND_BUFFER: usize = 64 * 1024;
/// Over HTTP/2: streams that were reset before anybody looked at them.
const PENDING_RESETS: usize = 20;
/// Over HTTP/2: how often a client is asked whether it is there, and how long it may take to say so.
const PING_EVERY: Duration = Duration::from_secs(20);
/// How long an HTTP/2 connection that was told to end may still take when nothing is under way.
const LAST_FRAMES: Duration = Duration::from_secs(1);

/// How a connection has ended.
enum End {
    /// As the protocol has it, or the other side has gone.
    Done,
    /// Something was due and has not come.
    Due(Due, Version),
}

/// Serves the connection until it ends, or is cut off.
pub(super) async fn serve(stream: TcpStream, peer: SocketAddr, router: Router, door: Arc<Door>) {
    let stream = Arc::new(stream);
    let pace = Pace::new(&door.limits);
    let wire = Wire::new(stream.clone(), pace.clone(), door.limits.clone());
    let flaw = wire.flaw();
    let end = tokio::select! {
        end = talk(wire, peer, router, &pace, &door) => end,
        () = door.stop.cut.cancelled() => return,
    };
    let words = last_words(&door, &end, flaw.get());
    match end {
        // What it did not read is not kept for it.
        End::Due(Due::Unread, _) => drop(stream.set_zero_linger()),
        End::Due(Due::Silent | Due::Idle, _) => {}
        End::Due(Due::SlowHead | Due::Old, _) | End::Done => {
            tokio::select! {
                () = farewell::close(&stream, words.as_deref().unwrap_or_default()) => {}
                () = door.stop.cut.cancelled() => {}
            }
        }
    }
}

/// Counts what was wrong, and says it where the protocol has words for it.
fn last_words(door: &Door, end: &End, flaw: Option<&Flaw>) -> Option<Vec<u8>> {
    let counts = &door.counts;
    let problem = match (end, flaw) {
        (_, Some(Flaw::Malformed(why))) => {
            counts.heads_malformed.one();
            Problem::new(Code::MalformedRequest, *why)
        }
        (_, Some(Flaw::TooLarge(why))) => {
            counts.heads_too_large.one();
            Problem::new(Code::HeadTooLarge, *why)
        }
        (End::Due(Due::SlowHead, version), None) => {
            counts.closed_slow_head.one();
            if *version == Version::Two {
                return None;
            }
            Problem::new(Code::RequestTimeout, "the head of the request did not arrive in time")
        }
        (End::Due(due, _), None) => {
            match due {
                Due::Silent => counts.closed_silent.one(),
                Due::Idle => counts.closed_idle.one(),
                Due::Unread => counts.closed_unread.one(),
                Due::SlowHead | Due::Old => {}
            }
            return None;
        }
        (End::Done, None) => return None,
    };
    Some(farewell::text(problem))
}

async fn talk(mut wire: Wire, peer: SocketAddr, router: Router, pace: &Arc<Pace>, door: &Arc<Door>) -> End {
    let first = within(pin!(wire.version()), pace, door, |_| pace.close()).await;
    let version = match first {
        Ok(Some(version)) => version,
        Ok(None) => return End::Done,
        Err(due) => return End::Due(due, Version::One),
    };
    let service = {
        let (pace, door) = (pace.clone(), door.clone());
        service_fn(move |request| answer(request, peer, router.clone(), pace.turn(), door.clone()))
    };
    let io = TokioIo::new(wire);
    let ended = match version {
        Version::One => {
            let mut builder = http1::Builder::new();
            // Heads that are too slow or too large do not come this far.
            builder.header_read_timeout(None).max_headers(door.limits.headers);
            builder.max_buf_size(door.limits.head_bytes.max(64 * 1024)).timer(TokioTimer::new());
            let connection = pin!(builder.serve_connection(io, service));
            within(connection, pace, door, |_| pace.close()).await
        }
        // Apart, because it is much larger, and connections that wait over HTTP/1 are many.
        Version::Two => {
            Box::pin(async {
                let mut builder = http2::Builder::new(TokioExecutor::new());
                builder
                    .timer(TokioTimer::new())
                    .max_concurrent_streams(door.limits.streams)
                    .max_header_list_size(u32::try_from(door.limits.head_bytes).unwrap_or(u32::MAX))
                    .max_pending_accept_reset_streams(PENDING_RESETS)
                    .initial_stream_window_size(STREAM_WINDOW)
                    .initial_connection_window_size(CONNECTION_WINDOW)
                    .max_send_buf_size(SEND_BUFFER)
                    .keep_alive_interval(PING_EVERY)
                    .keep_alive_timeout(PING_EVERY);
                let mut connection = pin!(builder.serve_connection(io, service));
                let asked = |connection: Pin<&mut http2::Connection<_, _, _>>| connection.graceful_shutdown();
                let ended = within(connection.as_mut(), pace, door, asked).await;
                if let Err(Due::Idle) = ended {
                    connection.as_mut().graceful_shutdown();
                    let _ = timeout(LAST_FRAMES, connection).await;
                }
                ended
            })
            .await
        }
    };
    match ended {
        Ok(Ok(())) => End::Done,
        Ok(Err(error)) => {
            tracing::debug!(%error, %peer, "a connection broke");
            End::Done
        }
        Err(due) => {
            tracing::debug!(?due, %peer, "a connection is closed");
            End::Due(due, version)
        }
    }
}

/// Runs `connection` as long as nothing is overdue, and asks it once to end: when it is old, or the server closing.
async fn within<C: Future>(
    mut connection: Pin<&mut C>,
    pace: &Pace,
    door: &Door,
    ask: impl Fn(Pin<&mut C>),
) -> Result<C::Output, Due> {
    let mut closed = pin!(door.stop.closing.cancelled());
    let mut asked = false;
    let mut timer = pin!(sleep_until(Instant::now()));
    let mut set: Option<Instant> = None;
    poll_fn(|context| {
        if !asked && closed.as_mut().poll(context).is_ready() {
            asked = true;
            pace.forget_age();
            ask(connection.as_mut());
        }
        loop {
            if let Poll::Ready(output) = connection.as_mut().poll(context) {
                return Poll::Ready(Ok(output));
            }
            // One timer for all: it is set again when it has gone off too early, or would go off too late.
            loop {
                let Some((at, due)) = pace.due(context.waker()) else { return Poll::Pending };
                if at <= Instant::now() {
                    if due != Due::Old {
                        return Poll::Ready(Err(due));
                    }
                    door.counts.ended_by_age.one();
                    asked = true;
                    pace.forget_age();
                    ask(connection.as_mut());
                    break;
                }
                if set.is_none_or(|set| at < set) {
                    timer.as_mut().reset(at);
                    set = Some(at);
                }
                if timer.as_mut().poll(context).is_pending() {
                    return Poll::Pending;
                }
                set = None;
            }
        }
    })
    .await
}

/// Has the router answer a request.
async fn answer(
    request: Request<Incoming>,
    peer: SocketAddr,
    router: Router,
    turn: Turn,
    door: Arc<Door>,
) -> Result<hyper::Response<Leaving>, Infallible> {
    let is_one = request.version() < HttpVersion::HTTP_2;
    // A body that must not be waited for, or that has too much left to be read past.
    let large = request.body().size_hint().upper().is_none_or(|upper| upper > SMALL_REST);
    let has_body = request.method() == Method::POST || is_one;
    let (mut parts, body) = request.into_parts();
    parts.extensions.insert(Peer(peer));
    // Only what is posted is read. Over HTTP/2 the rest would be kept until the answer.
    let whole = large.then(Arc::<AtomicBool>::default);
    let body = if has_body { Body::new(Arriving::new(body, &door.limits, whole.clone())) } else { Body::empty() };
    let response: Response = match router.oneshot(Request::from_parts(parts, body)).await {
        Ok(response) => response,
        Err(never) => match never {},
    };
    let unread = whole.is_some_and(|whole| !whole.load(Ordering::Relaxed));
    let (mut parts, body) = response.into_parts();
    if is_one && (unread || door.is_stopping() || turn.is_last()) {
        parts.headers.insert(header::CONNECTION, HeaderValue::from_static("close"));
    }
    Ok(hyper::Response::from_parts(parts, Leaving::new(body, turn)))
}

/// Nothing more goes out.
pub(super) fn shut(stream: &TcpStream) {
    let _ = socket2::SockRef::from(stream).shutdown(Shutdown::Write);
}
