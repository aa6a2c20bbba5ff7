//! A proxy between server and Redis that loses replies: what it is told to lose has happened all the same.

use std::collections::HashSet;
use std::sync::{Arc, Mutex};

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream, UnixStream};

/// Listens on a port of its own.
pub struct Proxy {
    pub url: String,
    lost: Arc<Mutex<HashSet<Vec<u8>>>>,
}

impl Proxy {
    /// Cuts the connection instead of passing on the first answer after each script's first call.
    pub async fn losing_first_replies(socket: String) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let url = format!("redis://{}", listener.local_addr().expect("an address"));
        let known: Arc<Mutex<HashSet<Vec<u8>>>> = Arc::default();
        let lost = known.clone();
        tokio::spawn(async move {
            while let Ok((client, _)) = listener.accept().await {
                let upstream = UnixStream::connect(&socket).await.expect("Redis");
                tokio::spawn(pass(client, upstream, known.clone()));
            }
        });
        Proxy { url, lost }
    }

    /// How many scripts have lost an answer.
    pub fn losses(&self) -> usize {
        self.lost.lock().unwrap().len()
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

async fn pass(mut client: TcpStream, mut upstream: UnixStream, known: Arc<Mutex<HashSet<Vec<u8>>>>) {
    let (mut from_client, mut from_redis) = (vec![0; 1 << 16], vec![0; 1 << 16]);
    let mut lose = false;
    loop {
        tokio::select! {
            read = client.read(&mut from_client) => {
                let Ok(read @ 1..) = read else { return };
                for digest in scripts(&from_client[..read]) {
                    // Redis may answer NOSCRIPT to the very first: that is lost too, and does no less good.
                    lose |= known.lock().unwrap().insert(digest);
                }
                if upstream.write_all(&from_client[..read]).await.is_err() {
                    return;
                }
            }
            read = upstream.read(&mut from_redis) => {
                let Ok(read @ 1..) = read else { return };
                if lose && !from_redis[..read].starts_with(b"-NOSCRIPT") {
                    return;
                }
                if client.write_all(&from_redis[..read]).await.is_err() {
                    return;
                }
            }
        }
    }
}
