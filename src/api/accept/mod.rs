//! The accept loop: connections in, within limits; requests to the router; an orderly end.
//!
//! Of a connection, `connection` is the course, `pace` the bounds on time, `wire` the socket as the HTTP library sees
//! it, `head` and `chunks` what is refused before that, `body` what bodies may take, `farewell` the close. `places`
//! counts connections, `budget` the memory of bodies, `counts` what happened.

mod body;
mod body_memory;
mod chunked;
mod close;
mod connection;
mod connection_limits;
mod metrics;
mod request_head;
mod timeouts;
mod transport;

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use futures_util::FutureExt as _;
use socket2::{SockRef, TcpKeepalive};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use tokio::time::{Instant, timeout_at};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::problem::{Code, Problem};
use crate::config::Limits;
use body_memory::BodyMemory;
use connection_limits::{ConnectionLimits, ConnectionPermit, LimitExceeded};

pub(in crate::api) use body::BodyTooSlow;
pub(in crate::api) use body_memory::MemoryPermit;
pub use metrics::Metrics;

/// Between attempts to accept when the system has no room for one more connection.
const ACCEPT_RETRY_DELAY: Duration = Duration::from_millis(50);
/// Connections that are accepted without a pause when the server closes: the runtime allows no more in one go.
const ACCEPT_BURST: u32 = 64;
/// Between words about that.
const LOG_INTERVAL: Duration = Duration::from_secs(10);
/// Connections that are told at once that there is no place for them; beyond, they are closed without a word.
const MAX_PENDING_REJECTIONS: usize = 64;
/// After so much silence the system asks the other side whether it is there, so often, so many times: a machine that
/// has vanished is noticed within a minute, and its long polls give their place up.
const KEEPALIVE_IDLE: Duration = Duration::from_secs(30);
const KEEPALIVE_INTERVAL: Duration = Duration::from_secs(10);
const KEEPALIVE_RETRIES: u32 = 3;

/// What all connections of a server share: when to end, their limits, and how far those are used.
#[derive(Debug)]
pub struct ServerState {
    shutdown: ShutdownTokens,
    limits: Arc<Limits>,
    connection_limits: Arc<ConnectionLimits>,
    body_memory: Arc<BodyMemory>,
    metrics: Metrics,
}

/// When to end.
#[derive(Debug)]
pub struct ShutdownTokens {
    /// From now on each answer over HTTP/1 is the last of its connection.
    pub stopping: CancellationToken,
    /// No more connections; those at no request end.
    pub closing: CancellationToken,
    /// What is left is cut off.
    aborting: CancellationToken,
}

impl ShutdownTokens {
    /// Two steps, of which the second may come a while after the first.
    pub fn new(stopping: CancellationToken, closing: CancellationToken) -> Self {
        ShutdownTokens { stopping, closing, aborting: CancellationToken::new() }
    }
}

impl ServerState {
    /// Within these limits, until `stop`.
    pub fn new(limits: &Limits, shutdown: ShutdownTokens) -> Arc<Self> {
        Arc::new(ServerState {
            shutdown,
            limits: Arc::new(limits.clone()),
            connection_limits: ConnectionLimits::new(limits.max_connections, limits.max_connections_per_address),
            body_memory: BodyMemory::new(limits.max_body_memory_bytes),
            metrics: Metrics::default(),
        })
    }

    /// Whether the server is going down.
    pub(in crate::api) fn is_stopping(&self) -> bool {
        self.shutdown.stopping.is_cancelled()
    }

    /// What happened so far.
    pub fn metrics(&self) -> &Metrics {
        &self.metrics
    }

    /// How many connections are open.
    pub fn open_connections(&self) -> usize {
        self.connection_limits.open_connections()
    }

    /// How many bytes of request bodies are held.
    pub fn body_memory_bytes(&self) -> usize {
        self.body_memory.reserved_bytes()
    }

    /// A share of the memory for a body that says it has `bytes`.
    pub(in crate::api) fn body_permit(&self, expected_bytes: usize) -> Result<MemoryPermit, Problem> {
        self.body_memory.permit(expected_bytes).ok_or_else(|| self.body_memory_exhausted())
    }

    /// There is no memory for this body.
    pub(in crate::api) fn body_memory_exhausted(&self) -> Problem {
        self.metrics.bodies_refused.inc();
        Problem::new(Code::Overloaded, "the bodies of other requests take all the memory that bodies may take")
    }

    /// The body took too long.
    pub(in crate::api) fn body_too_slow(&self) -> Problem {
        self.metrics.bodies_too_slow.inc();
        Problem::new(Code::RequestTimeout, "the body did not arrive in time")
    }
}

/// Serves until the door is closing; then takes no more connections and gives those that are at a request `patience` to
/// finish it. When the closing began.
pub async fn serve(
    listener: TcpListener,
    router: Router,
    server: Arc<ServerState>,
    shutdown_timeout: Duration,
) -> Instant {
    let connections = TaskTracker::new();
    let pending_rejections = Arc::new(Semaphore::new(MAX_PENDING_REJECTIONS));
    let mut next_log_at = Instant::now();
    let admit = |stream: TcpStream, peer: SocketAddr| match server.connection_limits.acquire(peer.ip()) {
        Ok(permit) => {
            server.metrics.connections_accepted.inc();
            configure_socket(&stream);
            connections.spawn(run_connection(permit, stream, peer, router.clone(), server.clone()));
        }
        Err(exceeded) => reject(stream, exceeded, &server, &pending_rejections),
    };
    loop {
        let accepted = tokio::select! {
            accepted = listener.accept() => accepted,
            () = server.shutdown.closing.cancelled() => break,
        };
        match accepted {
            Ok((stream, peer)) => admit(stream, peer),
            Err(error) if is_per_connection_error(&error) => {}
            Err(error) => {
                // Out of descriptors, as a rule: those in use come back, and to ask again at once would only spin.
                if Instant::now() >= next_log_at {
                    tracing::warn!(%error, "a connection could not be accepted");
                    next_log_at = Instant::now() + LOG_INTERVAL;
                }
                tokio::time::sleep(ACCEPT_RETRY_DELAY).await;
            }
        }
    }
    // Those that the system has accepted for us would be reset. It keeps no more ready for us from here on, but one.
    let _ = SockRef::from(&listener).listen(0);
    let mut accepted_count = 0;
    while let Some(accepted) = listener.accept().now_or_never() {
        match accepted {
            Ok((stream, peer)) => admit(stream, peer),
            Err(error) if is_per_connection_error(&error) => {}
            Err(_) => break,
        }
        accepted_count += 1;
        if accepted_count % ACCEPT_BURST == 0 {
            tokio::task::yield_now().await;
        }
    }
    drop(listener);
    let closed_at = Instant::now();
    connections.close();
    if timeout_at(closed_at + shutdown_timeout, connections.wait()).await.is_err() {
        tracing::warn!(connections = server.open_connections(), "some requests did not finish in time and are cut off");
        server.shutdown.aborting.cancel();
        connections.wait().await;
    }
    closed_at
}

async fn run_connection(
    permit: ConnectionPermit,
    stream: TcpStream,
    peer: SocketAddr,
    router: Router,
    server: Arc<ServerState>,
) {
    connection::serve(stream, peer, router, server).await;
    drop(permit);
}

/// Whether the error is about one connection that went before it was accepted, so that the next may be asked for.
fn is_per_connection_error(error: &std::io::Error) -> bool {
    use std::io::ErrorKind;
    matches!(error.kind(), ErrorKind::ConnectionAborted | ErrorKind::ConnectionReset | ErrorKind::ConnectionRefused)
}

fn configure_socket(stream: &TcpStream) {
    let _ = stream.set_nodelay(true);
    let keepalive = TcpKeepalive::new().with_time(KEEPALIVE_IDLE).with_interval(KEEPALIVE_INTERVAL);
    let _ = SockRef::from(stream).set_tcp_keepalive(&keepalive.with_retries(KEEPALIVE_RETRIES));
}

/// No place: it is told so, as a client expects of an overloaded server, with a time to come back; for a crowd of
/// them, which would only take the place of others, the close must do.
fn reject(stream: TcpStream, exceeded: LimitExceeded, server: &ServerState, pending_rejections: &Arc<Semaphore>) {
    let detail = match exceeded {
        LimitExceeded::MaxConnections => {
            server.metrics.connections_refused_full.inc();
            "this server has as many connections as it may have"
        }
        LimitExceeded::MaxConnectionsPerAddress => {
            server.metrics.connections_refused_address.inc();
            "your address has as many connections as it may have"
        }
    };
    let Ok(permit) = pending_rejections.clone().try_acquire_owned() else { return };
    tokio::spawn(async move {
        close::lingering_close(&stream, &close::encode_problem(Problem::new(Code::TooManyConnections, detail))).await;
        drop(permit);
    });
}
