//! The HTTP server: accepts connections within limits, passes requests to the router, and shuts down in order.
//!
//! Knows HTTP and sockets, but neither routes nor problem documents: the caller passes a router, and a function that
//! renders a [`Rejection`].
//!
//! - `connection`: one connection, from its first byte to its close.
//! - `socket`, `transport`: the stream to a client, and the bytes of it that the HTTP library may read.
//! - `request_head`, `chunked`: what the transport checks before the HTTP library parses a request.
//! - `timeouts`: every time limit of a connection. `body`: the time limit of a request body.
//! - `connection_limits`, `body_memory`: how many connections and bytes are in use.
//! - `rejection`, `close`: why a connection or request is rejected, and how a connection is closed.
//! - `metrics`: counters.

mod body;
mod body_memory;
mod chunked;
mod close;
mod connection;
mod connection_limits;
mod metrics;
mod rejection;
mod request_head;
mod socket;
mod timeouts;
mod transport;

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use futures_util::FutureExt as _;
use socket2::SockRef;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use tokio::time::{Instant, timeout_at};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::config::Limits;
use body_memory::BodyMemory;
use connection_limits::{ConnectionLimits, ConnectionPermit};
use socket::Socket;

pub(crate) use body::BodyTooSlow;
pub(crate) use body_memory::MemoryPermit;
pub use connection::Peer;
pub use metrics::Metrics;
pub use rejection::{Rejection, RenderRejection};

/// Pause after a failed accept, for example when the process has no free file descriptor.
const ACCEPT_RETRY_DELAY: Duration = Duration::from_millis(50);
/// Connections accepted between two yields while the server closes: the runtime's budget allows no more at once.
const ACCEPT_BURST: u32 = 64;
/// Shortest time between two log lines about failed accepts.
const LOG_INTERVAL: Duration = Duration::from_secs(10);
/// Rejected connections that are being answered at one time. Beyond it, a rejected connection is closed without an
/// answer.
const MAX_PENDING_REJECTIONS: usize = 64;

/// The state that all connections of a server share.
#[derive(Debug)]
pub struct ServerState {
    shutdown: ShutdownTokens,
    limits: Arc<Limits>,
    connection_limits: Arc<ConnectionLimits>,
    body_memory: Arc<BodyMemory>,
    render_rejection: RenderRejection,
    metrics: Metrics,
}

/// The steps of a shutdown, in order.
#[derive(Debug)]
pub struct ShutdownTokens {
    /// From here on, each HTTP/1 response is the last of its connection.
    pub stopping: CancellationToken,
    /// From here on, no connection is accepted, and a connection without a request in progress is closed.
    pub closing: CancellationToken,
    /// Closes the connections that are left.
    aborting: CancellationToken,
}

impl ShutdownTokens {
    /// Returns the tokens for a server that stops in the two steps given. `closing` may follow `stopping` later.
    pub fn new(stopping: CancellationToken, closing: CancellationToken) -> Self {
        ShutdownTokens { stopping, closing, aborting: CancellationToken::new() }
    }
}

impl ServerState {
    /// Returns the state of a server without connections.
    pub fn new(limits: &Limits, shutdown: ShutdownTokens, render_rejection: RenderRejection) -> Arc<Self> {
        Arc::new(ServerState {
            shutdown,
            limits: Arc::new(limits.clone()),
            connection_limits: ConnectionLimits::new(limits.max_connections, limits.max_connections_per_address),
            body_memory: BodyMemory::new(limits.max_body_memory_bytes),
            render_rejection,
            metrics: Metrics::default(),
        })
    }

    /// Whether the server has begun to shut down.
    pub(crate) fn is_stopping(&self) -> bool {
        self.shutdown.stopping.is_cancelled()
    }

    /// Returns the counters of this server.
    pub fn metrics(&self) -> &Metrics {
        &self.metrics
    }

    /// Returns the number of open connections.
    pub fn open_connections(&self) -> usize {
        self.connection_limits.open_connections()
    }

    /// Returns the number of bytes that request bodies hold in memory.
    pub fn body_memory_bytes(&self) -> usize {
        self.body_memory.reserved_bytes()
    }

    /// Returns a permit for a body of `expected_bytes`. See [`BodyMemory::permit`].
    pub(crate) fn body_permit(&self, expected_bytes: usize) -> Result<MemoryPermit, Rejection> {
        self.body_memory.permit(expected_bytes).ok_or_else(|| self.reject(Rejection::BodyMemory))
    }

    /// Counts the rejection and returns it.
    pub(crate) fn reject(&self, rejection: Rejection) -> Rejection {
        self.metrics.count_rejection(rejection);
        rejection
    }

    /// Returns the rejection as an encoded response, after which the connection is closed.
    fn encode_rejection(&self, rejection: Rejection) -> Vec<u8> {
        close::encode_response((self.render_rejection)(rejection))
    }
}

/// Serves until `closing`. Then accepts no more connections, and closes those left after `shutdown_timeout`. Returns the
/// time at which closing began.
pub async fn serve(
    listener: TcpListener,
    router: Router,
    server: Arc<ServerState>,
    shutdown_timeout: Duration,
) -> Instant {
    let connections = TaskTracker::new();
    let pending_rejections = Arc::new(Semaphore::new(MAX_PENDING_REJECTIONS));
    let mut next_log_at = Instant::now();
    let admit = |stream: TcpStream, peer: SocketAddr| {
        let socket = Socket::new(stream);
        match server.connection_limits.acquire(peer.ip()) {
            Ok(permit) => {
                server.metrics.connections_accepted.inc();
                socket.configure();
                connections.spawn(run_connection(permit, socket, peer, router.clone(), server.clone()));
            }
            Err(rejection) => reject(socket, server.reject(rejection), &server, &pending_rejections),
        }
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
                // Usually no file descriptor is free. A retry without a pause would spin until one is closed.
                if Instant::now() >= next_log_at {
                    tracing::warn!(%error, "accepting a connection failed");
                    next_log_at = Instant::now() + LOG_INTERVAL;
                }
                tokio::time::sleep(ACCEPT_RETRY_DELAY).await;
            }
        }
    }
    // Closing the listener would reset the connections in its backlog: accept them first. A backlog of 0 lets the kernel
    // queue at most one more.
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
        let connections_open = server.open_connections();
        tracing::warn!(
            connections_open,
            "requests did not finish within shutdown_timeout_ms: closing their connections"
        );
        server.shutdown.aborting.cancel();
        connections.wait().await;
    }
    closed_at
}

async fn run_connection(
    permit: ConnectionPermit,
    socket: Socket,
    peer: SocketAddr,
    router: Router,
    server: Arc<ServerState>,
) {
    connection::serve(socket, peer, router, server).await;
    drop(permit);
}

/// Whether the error concerns a connection that ended before it was accepted. The next accept may then follow at once.
fn is_per_connection_error(error: &std::io::Error) -> bool {
    use std::io::ErrorKind;
    matches!(error.kind(), ErrorKind::ConnectionAborted | ErrorKind::ConnectionReset | ErrorKind::ConnectionRefused)
}

/// Answers a connection over a limit with the rejection, and closes it. If `MAX_PENDING_REJECTIONS` are in progress,
/// closes it without an answer.
fn reject(mut socket: Socket, rejection: Rejection, server: &ServerState, pending_rejections: &Arc<Semaphore>) {
    let Ok(permit) = pending_rejections.clone().try_acquire_owned() else { return };
    let response = server.encode_rejection(rejection);
    tokio::spawn(async move {
        close::lingering_close(&mut socket, &response).await;
        drop(permit);
    });
}
