//! The accept loop: connections in, within limits; requests to the router; an orderly end.
//!
//! Of a connection, `connection` is the course, `pace` the bounds on time, `wire` the socket as the HTTP library sees
//! it, `head` and `chunks` what is refused before that, `body` what bodies may take, `farewell` the close. `places`
//! counts connections, `budget` the memory of bodies, `counts` what happened.

mod body;
mod budget;
mod chunks;
mod connection;
mod counts;
mod farewell;
mod head;
mod pace;
mod places;
mod wire;

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
use budget::Budget;
use places::{Place, Places, Refused};

pub(in crate::api) use body::TooSlow;
pub(in crate::api) use budget::Share;
pub use counts::Counts;

/// Between attempts to accept when the system has no room for one more connection.
const PAUSE: Duration = Duration::from_millis(50);
/// Connections that are accepted without a pause when the server closes: the runtime allows no more in one go.
const IN_ONE_GO: u32 = 64;
/// Between words about that.
const WORDS_EVERY: Duration = Duration::from_secs(10);
/// Connections that are told at once that there is no place for them; beyond, they are closed without a word.
const FAREWELLS: usize = 64;
/// After so much silence the system asks the other side whether it is there, so often, so many times: a machine that
/// has vanished is noticed within a minute, and its long polls give their place up.
const KEEPALIVE_AFTER: Duration = Duration::from_secs(30);
const KEEPALIVE_EVERY: Duration = Duration::from_secs(10);
const KEEPALIVE_TIMES: u32 = 3;

/// What all connections of a server share: when to end, their limits, and how far those are used.
#[derive(Debug)]
pub struct Door {
    stop: Stop,
    limits: Arc<Limits>,
    places: Arc<Places>,
    budget: Arc<Budget>,
    counts: Counts,
}

/// When to end.
#[derive(Debug)]
pub struct Stop {
    /// From now on each answer over HTTP/1 is the last of its connection.
    pub stopping: CancellationToken,
    /// No more connections; those at no request end.
    pub closing: CancellationToken,
    /// What is left is cut off.
    cut: CancellationToken,
}

impl Stop {
    /// Two steps, of which the second may come a while after the first.
    pub fn new(stopping: CancellationToken, closing: CancellationToken) -> Self {
        Stop { stopping, closing, cut: CancellationToken::new() }
    }
}

impl Door {
    /// Within these limits, until `stop`.
    pub fn new(limits: &Limits, stop: Stop) -> Arc<Self> {
        Arc::new(Door {
            stop,
            limits: Arc::new(limits.clone()),
            places: Places::new(limits.connections, limits.connections_per_address),
            budget: Budget::new(limits.body_memory),
            counts: Counts::default(),
        })
    }

    /// Whether the server is going down.
    pub(in crate::api) fn is_stopping(&self) -> bool {
        self.stop.stopping.is_cancelled()
    }

    /// What happened so far.
    pub fn counts(&self) -> &Counts {
        &self.counts
    }

    /// How many connections are open.
    pub fn connections(&self) -> usize {
        self.places.taken()
    }

    /// How many bytes of request bodies are held.
    pub fn body_bytes(&self) -> usize {
        self.budget.held()
    }

    /// A share of the memory for a body that says it has `bytes`.
    pub(in crate::api) fn share(&self, bytes: usize) -> Result<Share, Problem> {
        self.budget.share(bytes).ok_or_else(|| self.overloaded())
    }

    /// There is no memory for this body.
    pub(in crate::api) fn overloaded(&self) -> Problem {
        self.counts.bodies_refused.one();
        Problem::new(Code::Overloaded, "the bodies of other requests take all the memory that bodies may take")
    }

    /// The body took too long.
    pub(in crate::api) fn too_slow(&self) -> Problem {
        self.counts.bodies_too_slow.one();
        Problem::new(Code::RequestTimeout, "the body did not arrive in time")
    }
}

/// Serves until the door is closing; then takes no more connections and gives those that are at a request `patience` to
/// finish it. When the closing began.
pub async fn serve(listener: TcpListener, router: Router, door: Arc<Door>, patience: Duration) -> Instant {
    let connections = TaskTracker::new();
    let farewells = Arc::new(Semaphore::new(FAREWELLS));
    let mut quiet_until = Instant::now();
    let take_in = |stream: TcpStream, peer: SocketAddr| match door.places.enter(peer.ip()) {
        Ok(place) => {
            door.counts.connections_accepted.one();
            prepare(&stream);
            connections.spawn(hold(place, stream, peer, router.clone(), door.clone()));
        }
        Err(refused) => turn_away(stream, refused, &door, &farewells),
    };
    loop {
        let accepted = tokio::select! {
            accepted = listener.accept() => accepted,
            () = door.stop.closing.cancelled() => break,
        };
        match accepted {
            Ok((stream, peer)) => take_in(stream, peer),
            Err(error) if is_of_one(&error) => {}
            Err(error) => {
                // Out of descriptors, as a rule: those in use come back, and to ask again at once would only spin.
                if Instant::now() >= quiet_until {
                    tracing::warn!(%error, "a connection could not be accepted");
                    quiet_until = Instant::now() + WORDS_EVERY;
                }
                tokio::time::sleep(PAUSE).await;
            }
        }
    }
    // Those that the system has accepted for us would be reset. It keeps no more ready for us from here on, but one.
    let _ = SockRef::from(&listener).listen(0);
    let mut taken = 0;
    while let Some(accepted) = listener.accept().now_or_never() {
        match accepted {
            Ok((stream, peer)) => take_in(stream, peer),
            Err(error) if is_of_one(&error) => {}
            Err(_) => break,
        }
        taken += 1;
        if taken % IN_ONE_GO == 0 {
            tokio::task::yield_now().await;
        }
    }
    drop(listener);
    let closed = Instant::now();
    connections.close();
    if timeout_at(closed + patience, connections.wait()).await.is_err() {
        tracing::warn!(connections = door.connections(), "some requests did not finish in time and are cut off");
        door.stop.cut.cancel();
        connections.wait().await;
    }
    closed
}

async fn hold(place: Place, stream: TcpStream, peer: SocketAddr, router: Router, door: Arc<Door>) {
    connection::serve(stream, peer, router, door).await;
    drop(place);
}

/// Whether the error is about one connection that went before it was accepted, so that the next may be asked for.
fn is_of_one(error: &std::io::Error) -> bool {
    use std::io::ErrorKind;
    matches!(error.kind(), ErrorKind::ConnectionAborted | ErrorKind::ConnectionReset | ErrorKind::ConnectionRefused)
}

fn prepare(stream: &TcpStream) {
    let _ = stream.set_nodelay(true);
    let keepalive = TcpKeepalive::new().with_time(KEEPALIVE_AFTER).with_interval(KEEPALIVE_EVERY);
    let _ = SockRef::from(stream).set_tcp_keepalive(&keepalive.with_retries(KEEPALIVE_TIMES));
}

/// No place: it is told so, as a client expects of an overloaded server, with a time to come back; for a crowd of
/// them, which would only take the place of others, the close must do.
fn turn_away(stream: TcpStream, refused: Refused, door: &Door, farewells: &Arc<Semaphore>) {
    let why = match refused {
        Refused::Full => {
            door.counts.connections_refused_full.one();
            "this server has as many connections as it may have"
        }
        Refused::Address => {
            door.counts.connections_refused_address.one();
            "your address has as many connections as it may have"
        }
    };
    let Ok(turn) = farewells.clone().try_acquire_owned() else { return };
    tokio::spawn(async move {
        farewell::close(&stream, &farewell::text(Problem::new(Code::TooManyConnections, why))).await;
        drop(turn);
    });
}
