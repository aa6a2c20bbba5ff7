//! A client that sends exact bytes, and observes when and how the server responds.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use reqwest::header::{HeaderMap, HeaderName, HeaderValue};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

use super::Answer;

/// Longer than any wait in a test.
const PATIENCE: Duration = Duration::from_secs(100);

/// One connection.
pub struct Raw {
    pub stream: TcpStream,
    pub opened: Instant,
    received: Vec<u8>,
}

impl Raw {
    pub async fn connect(address: SocketAddr) -> Self {
        Self::over(TcpStream::connect(address).await.expect("a connection"))
    }

    pub fn over(stream: TcpStream) -> Self {
        stream.set_nodelay(true).expect("no delay");
        Raw { stream, opened: Instant::now(), received: Vec::new() }
    }

    pub async fn send(&mut self, text: &str) {
        self.stream.write_all(text.as_bytes()).await.expect("a write");
    }

    /// Sends `text` byte by byte, one per `pause`, until the server closes or responds.
    pub async fn dribble(&mut self, text: &str, pause: Duration) {
        let mut pulse = tokio::time::interval(pause);
        for byte in text.bytes() {
            let taken = tokio::select! {
                _ = pulse.tick() => self.stream.write_all(&[byte]).await,
                // The server has responded or closed.
                _ = self.stream.readable() => return,
            };
            if taken.is_err() {
                return;
            }
        }
    }

    async fn more(&mut self) -> usize {
        let read = tokio::time::timeout(PATIENCE, self.stream.read_buf(&mut self.received)).await;
        read.expect("an answer or an end in time").unwrap_or(0)
    }

    /// Returns the next response; `None` if the connection ends before one.
    pub async fn answer(&mut self) -> Option<Answer> {
        let head_end = loop {
            if let Some(at) = self.received.windows(4).position(|four| four == b"\r\n\r\n") {
                break at + 4;
            }
            if self.more().await == 0 {
                assert!(self.received.is_empty(), "half a response: {}", String::from_utf8_lossy(&self.received));
                return None;
            }
        };
        let head = String::from_utf8(self.received.drain(..head_end).collect()).expect("text");
        let mut lines = head.trim_end().split("\r\n");
        let status = lines.next().and_then(|line| line.split(' ').nth(1)?.parse().ok()).expect("a status");
        let mut headers = HeaderMap::new();
        for line in lines {
            let (name, value) = line.split_once(':').expect("a header");
            let name: HeaderName = name.parse().expect("a name");
            headers.append(name, HeaderValue::from_str(value.trim()).expect("a value"));
        }
        let length = headers.get("content-length").map_or(0, |length| length.to_str().unwrap().parse().unwrap());
        while self.received.len() < length {
            assert!(self.more().await > 0, "the whole body");
        }
        let text = String::from_utf8(self.received.drain(..length).collect()).expect("text");
        Some(Answer { status, headers, text })
    }

    /// Closes the sending half; reading goes on.
    pub async fn shut(&mut self) {
        self.stream.shutdown().await.expect("an end of what is sent");
    }

    /// Waits for the end of the connection, without further data; returns its age then.
    pub async fn closed(&mut self) -> Duration {
        assert_eq!(self.more().await, 0, "unexpected data: {}", String::from_utf8_lossy(&self.received));
        self.opened.elapsed()
    }
}

/// A request with a JSON body.
pub fn post(path: &str, body: &str) -> String {
    let length = body.len();
    format!(
        "POST {path} HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\ncontent-length: {length}\r\n\r\n{body}"
    )
}

/// A request without a body.
pub fn get(path: &str) -> String {
    format!("GET {path} HTTP/1.1\r\nhost: x\r\n\r\n")
}
