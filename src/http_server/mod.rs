//! The HTTP server: accepts connections within limits, has requests answered, and shuts down in order.
//!
//! Knows HTTP and sockets, but neither routes nor problem documents: the caller passes a [`Responder`], and a function
//! that renders a [`Rejection`].
//!
//! - `state`: the state that all connections share, and the steps of a shutdown.
//! - `connection`: serves a connection, from its first byte to its close.
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
mod state;
mod timeouts;
mod transport;

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use futures_util::FutureExt as _;
use socket2::SockRef;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use tokio::task::JoinSet;
use tokio::time::{Instant, timeout_at};

use connection_limits::ConnectionPermit;
use socket::Socket;

pub(crate) use body::BodyTooSlow;
pub(crate) use body_memory::MemoryPermit;
pub use connection::{Peer, Responder};
pub use metrics::Metrics;
pub use rejection::{Rejection, RenderRejection};
pub use state::{ServerState, ShutdownTokens};
pub use timeouts::LongPoll;

/// Pause after a failed accept, for example when the process has no free file descriptor.
const ACCEPT_RETRY_DELAY: Duration = Duration::from_millis(50);
/// Connections accepted between two yields while the server closes: the runtime's budget allows no more at once.
const ACCEPT_BURST: u32 = 64;
/// Shortest time between two log lines about failed accepts.
const LOG_INTERVAL: Duration = Duration::from_secs(10);
/// Rejected connections that are being answered at one time. Beyond it, a rejected connection is closed without an
/// answer.
const MAX_PENDING_REJECTIONS: usize = 64;

/// Serves until `closing`, with the responses of `responder`. Then accepts no more connections, and closes those left
/// after `shutdown_timeout`. Returns the time at which closing began.
pub async fn serve(
    listener: TcpListener,
    responder: impl Responder,
    server: Arc<ServerState>,
    shutdown_timeout: Duration,
) -> Instant {
    let mut connections = JoinSet::new();
    let pending_rejections = Arc::new(Semaphore::new(MAX_PENDING_REJECTIONS));
    let mut next_log_at = Instant::now();
    let admit = |connections: &mut JoinSet<()>, stream: TcpStream, peer: SocketAddr| {
        let socket = Socket::new(stream);
        match server.connection_limits.acquire(peer.ip()) {
            Ok(permit) => {
                server.metrics.counters.connections_accepted.inc();
                socket.configure();
                connections.spawn(run_connection(permit, socket, peer, responder.clone(), server.clone()));
            }
            Err(rejection) => reject(socket, server.reject(rejection), &server, &pending_rejections),
        }
    };
    loop {
        let accepted = tokio::select! {
            accepted = listener.accept() => accepted,
            Some(_closed) = connections.join_next() => continue,
            () = server.shutdown.closing.cancelled() => break,
        };
        match accepted {
            Ok((stream, peer)) => admit(&mut connections, stream, peer),
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
            Ok((stream, peer)) => admit(&mut connections, stream, peer),
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
    let all_closed = async { while connections.join_next().await.is_some() {} };
    if timeout_at(closed_at + shutdown_timeout, all_closed).await.is_err() {
        let connections_open = server.open_connections();
        tracing::warn!(
            connections_open,
            "requests did not finish within shutdown_timeout_ms: closing their connections"
        );
        connections.shutdown().await;
    }
    closed_at
}

async fn run_connection(
    permit: ConnectionPermit,
    socket: Socket,
    peer: SocketAddr,
    responder: impl Responder,
    server: Arc<ServerState>,
) {
    connection::serve(socket, peer, responder, server).await;
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
