//! A proxy between clients and a server, or between a server and Redis, that injects network faults.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream, UnixStream};
use tokio::sync::watch;

use super::pause;

/// The upstream of a proxy.
#[derive(Clone, Debug)]
pub enum Upstream {
    Tcp(SocketAddr),
    Unix(PathBuf),
}

/// The way to end a connection.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Cut {
    /// By FIN.
    Fin,
    /// By RST.
    Rst,
    /// The client's half only: the upstream reads an end and can still reply.
    Half,
}

/// Listens on its own port until the test ends; the upstream may change.
#[derive(Clone)]
pub struct Proxy {
    pub address: SocketAddr,
    state: Arc<State>,
}

struct State {
    upstream: Mutex<Option<Upstream>>,
    links: Mutex<HashMap<u64, Arc<Link>>>,
    made: AtomicU64,
    delay_ms: AtomicU64,
    frozen: watch::Sender<bool>,
    losing: AtomicU32,
    lost: AtomicU64,
}

struct Link {
    cut: watch::Sender<Option<Cut>>,
    /// It carries pub/sub messages.
    subscribed: AtomicBool,
}

impl Proxy {
    pub async fn start(upstream: Option<Upstream>) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let address = listener.local_addr().expect("an address");
        let state = Arc::new(State {
            upstream: Mutex::new(upstream),
            links: Mutex::default(),
            made: AtomicU64::new(0),
            delay_ms: AtomicU64::new(0),
            frozen: watch::Sender::new(false),
            losing: AtomicU32::new(0),
            lost: AtomicU64::new(0),
        });
        let own = state.clone();
        tokio::spawn(async move {
            while let Ok((client, _)) = listener.accept().await {
                tokio::spawn(own.clone().serve(client));
            }
        });
        Proxy { address, state }
    }

    /// Sets the upstream of new connections; `None` closes them.
    pub fn lead_to(&self, upstream: Option<Upstream>) {
        *self.state.upstream.lock().unwrap() = upstream;
    }

    /// Ends every open connection; returns their number.
    pub fn cut(&self, how: Cut) -> usize {
        self.cut_where(how, |_| true)
    }

    /// Ends the pub/sub connections.
    pub fn cut_signals(&self) -> usize {
        self.cut_where(Cut::Rst, |link| link.subscribed.load(Ordering::Relaxed))
    }

    fn cut_where(&self, how: Cut, which: impl Fn(&Link) -> bool) -> usize {
        let links = self.state.links.lock().unwrap();
        let chosen: Vec<_> = links.values().filter(|link| which(link)).collect();
        for link in &chosen {
            link.cut.send_replace(Some(how));
        }
        chosen.len()
    }

    /// Delays all data by this duration, in both directions.
    pub fn delay(&self, ms: u64) {
        self.state.delay_ms.store(ms, Ordering::Relaxed);
    }

    /// Stops or resumes all data.
    pub fn freeze(&self, frozen: bool) {
        self.state.frozen.send_replace(frozen);
    }

    /// Loses the next `count` replies and closes their connections; the requests took effect.
    pub fn lose_replies(&self, count: u32) {
        self.state.losing.store(count, Ordering::Relaxed);
    }

    /// Ends all faults for new connections.
    pub fn heal(&self) {
        self.delay(0);
        self.lose_replies(0);
        self.freeze(false);
    }

    pub fn lost(&self) -> u64 {
        self.state.lost.load(Ordering::Relaxed)
    }
}

impl State {
    async fn serve(self: Arc<Self>, mut client: TcpStream) {
        client.set_nodelay(true).expect("an option");
        let upstream = self.upstream.lock().unwrap().clone();
        let number = self.made.fetch_add(1, Ordering::Relaxed);
        let link = Arc::new(Link { cut: watch::Sender::new(None), subscribed: AtomicBool::new(false) });
        self.links.lock().unwrap().insert(number, link.clone());
        match upstream {
            None => {}
            Some(Upstream::Tcp(address)) => {
                if let Ok(upstream) = TcpStream::connect(address).await {
                    upstream.set_nodelay(true).expect("an option");
                    self.pass(&mut client, upstream, &link).await;
                }
            }
            Some(Upstream::Unix(path)) => {
                if let Ok(upstream) = UnixStream::connect(path).await {
                    self.pass(&mut client, upstream, &link).await;
                }
            }
        }
        self.links.lock().unwrap().remove(&number);
        if *link.cut.borrow() == Some(Cut::Rst) {
            let _ = client.set_zero_linger();
        }
    }

    async fn pass(&self, client: &mut TcpStream, upstream: impl AsyncRead + AsyncWrite, link: &Link) {
        let (from_client, to_client) = client.split();
        let (from_upstream, to_upstream) = tokio::io::split(upstream);
        let requests = async {
            self.requests(from_client, to_upstream, link).await;
            // A pending request may still be answered.
            std::future::pending::<()>().await;
        };
        let mut cut = link.cut.subscribe();
        tokio::select! {
            () = requests => {}
            () = self.replies(from_upstream, to_client) => {}
            _ = cut.wait_for(|cut| matches!(cut, Some(Cut::Fin | Cut::Rst))) => {}
        }
    }

    async fn requests(&self, mut from: impl AsyncRead + Unpin, mut to: impl AsyncWrite + Unpin, link: &Link) {
        let (mut bytes, mut cut) = (vec![0; 1 << 16], link.cut.subscribe());
        loop {
            let read = tokio::select! {
                read = from.read(&mut bytes) => read,
                _ = cut.wait_for(|cut| *cut == Some(Cut::Half)) => Ok(0),
            };
            let Ok(read @ 1..) = read else {
                let _ = to.shutdown().await;
                return;
            };
            if bytes[..read].windows(10).any(|window| window == b"SSUBSCRIBE") {
                link.subscribed.store(true, Ordering::Relaxed);
            }
            self.hold().await;
            if to.write_all(&bytes[..read]).await.is_err() {
                return;
            }
        }
    }

    async fn replies(&self, mut from: impl AsyncRead + Unpin, mut to: impl AsyncWrite + Unpin) {
        let mut bytes = vec![0; 1 << 16];
        while let Ok(read @ 1..) = from.read(&mut bytes).await {
            self.hold().await;
            let lose = self.losing.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |count| count.checked_sub(1));
            if lose.is_ok() {
                self.lost.fetch_add(1, Ordering::Relaxed);
                return;
            }
            if to.write_all(&bytes[..read]).await.is_err() {
                return;
            }
        }
    }

    async fn hold(&self) {
        let delay = self.delay_ms.load(Ordering::Relaxed);
        if delay > 0 {
            pause(Duration::from_millis(delay)).await;
        }
        let mut frozen = self.frozen.subscribe();
        let _ = frozen.wait_for(|frozen| !frozen).await;
    }
}
