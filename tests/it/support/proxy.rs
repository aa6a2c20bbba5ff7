//! A proxy between server and Redis that loses replies: their scripts took effect.

use std::collections::HashSet;
use std::sync::{Arc, Mutex};

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream, UnixStream};

/// A proxy with its own port.
pub struct Proxy {
    pub url: String,
    plan: Arc<Mutex<Plan>>,
}

/// The replies to lose: the connection is closed in place of the reply.
#[derive(Default)]
struct Plan {
    /// The first reply to each script.
    first: bool,
    known: HashSet<Vec<u8>>,
    /// The next reply to these scripts.
    next: HashSet<Vec<u8>>,
    /// Each reply to these scripts.
    each: HashSet<Vec<u8>>,
}

impl Plan {
    /// Whether the reply to this script call is lost.
    fn loses(&mut self, digest: Vec<u8>) -> bool {
        // The very first reply may be NOSCRIPT; losing it tests the same.
        self.each.contains(&digest) || self.next.remove(&digest) || self.known.insert(digest) && self.first
    }
}

impl Proxy {
    /// Forwards everything until replies are to be lost.
    pub async fn start(socket: String) -> Self {
        Self::with(socket, Plan::default()).await
    }

    /// Loses the first reply to each script.
    pub async fn losing_first_replies(socket: String) -> Self {
        Self::with(socket, Plan { first: true, ..Plan::default() }).await
    }

    async fn with(socket: String, plan: Plan) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let url = format!("redis://{}", listener.local_addr().expect("an address"));
        let plan = Arc::new(Mutex::new(plan));
        let shared = plan.clone();
        tokio::spawn(async move {
            while let Ok((client, _)) = listener.accept().await {
                // While Redis is down, connections are closed.
                if let Ok(upstream) = UnixStream::connect(&socket).await {
                    tokio::spawn(pass(client, upstream, shared.clone()));
                }
            }
        });
        Proxy { url, plan }
    }

    /// Loses the next reply to the script with this digest.
    pub fn lose_next(&self, digest: &str) {
        self.plan.lock().unwrap().next.insert(digest.into());
    }

    /// Loses each reply to the script with this digest from now on.
    pub fn lose_each(&self, digest: &str) {
        self.plan.lock().unwrap().each.insert(digest.into());
    }

    /// Cancels pending losses.
    pub fn lose_no_more(&self) {
        let mut plan = self.plan.lock().unwrap();
        plan.next.clear();
        plan.each.clear();
    }

    /// The number of scripts whose first reply was lost.
    pub fn losses(&self) -> usize {
        self.plan.lock().unwrap().known.len()
    }
}

/// The digest of the first EVALSHA in these bytes, or of the first EVAL's text.
fn scripts(bytes: &[u8]) -> Vec<Vec<u8>> {
    let mut found = Vec::new();
    let mut rest = bytes;
    while let Some(at) = rest.windows(7).position(|window| window == b"EVALSHA") {
        // $7\r\nEVALSHA\r\n$40\r\n<digest>
        if let Some(digest) = rest.get(at + 14..at + 54) {
            found.push(digest.to_vec());
        }
        rest = rest.get(at + 7..).unwrap_or_default();
    }
    found
}

async fn pass(mut client: TcpStream, mut upstream: UnixStream, plan: Arc<Mutex<Plan>>) {
    let (mut from_client, mut from_redis) = (vec![0; 1 << 16], vec![0; 1 << 16]);
    let mut lose = false;
    loop {
        tokio::select! {
            read = client.read(&mut from_client) => {
                let Ok(read @ 1..) = read else { return };
                for digest in scripts(&from_client[..read]) {
                    lose |= plan.lock().unwrap().loses(digest);
                }
                if upstream.write_all(&from_client[..read]).await.is_err() {
                    return;
                }
            }
            read = upstream.read(&mut from_redis) => {
                let Ok(read @ 1..) = read else { return };
                // Behind the NOSCRIPT of another call may be the reply to lose.
                let is_only_noscript = from_redis.starts_with(b"-NOSCRIPT")
                    && from_redis[..read].iter().position(|byte| *byte == b'\n') == Some(read - 1);
                if lose && !is_only_noscript {
                    return;
                }
                if client.write_all(&from_redis[..read]).await.is_err() {
                    return;
                }
            }
        }
    }
}
