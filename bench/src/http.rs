//! A raw HTTP/1.1 client over one kept-alive connection. It shares the processors with the systems under test, so it
//! does the minimum: a request is one write, and a response is read as bytes.

use std::net::SocketAddr;

use anyhow::{Context as _, Result, bail};
use memchr::memmem;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

/// One connection.
pub struct Http {
    stream: TcpStream,
    request: Vec<u8>,
    answer: Vec<u8>,
    /// The body of a chunked response.
    joined: Vec<u8>,
}

/// A response, valid until the next request.
pub struct Answer<'a> {
    /// Its status code.
    pub status: u16,
    /// Its whole body.
    pub body: &'a [u8],
}

impl<'a> Answer<'a> {
    /// Returns the body; an error if the status is another.
    pub fn expect(self, status: u16) -> Result<&'a [u8]> {
        if self.status != status {
            bail!("status {} instead of {status}: {}", self.status, String::from_utf8_lossy(self.body));
        }
        Ok(self.body)
    }
}

impl Http {
    /// Connects.
    pub async fn connect(address: SocketAddr) -> Result<Self> {
        let stream = TcpStream::connect(address).await.with_context(|| format!("connecting to {address}"))?;
        stream.set_nodelay(true)?;
        Ok(Self { stream, request: Vec::new(), answer: Vec::new(), joined: Vec::new() })
    }

    /// Sends JSON and reads the response.
    pub async fn post(&mut self, path: &str, body: &[u8]) -> Result<Answer<'_>> {
        self.send("POST", path, "application/json", body).await
    }

    /// Sends a request of any kind and reads the response. An empty content type is not sent.
    pub async fn send(&mut self, method: &str, path: &str, content_type: &str, body: &[u8]) -> Result<Answer<'_>> {
        let mut length = [0; 20];
        let request = &mut self.request;
        request.clear();
        for part in [method, " ", path, " HTTP/1.1\r\nhost: localhost\r\n"] {
            request.extend_from_slice(part.as_bytes());
        }
        if !content_type.is_empty() {
            for part in ["content-type: ", content_type, "\r\n"] {
                request.extend_from_slice(part.as_bytes());
            }
        }
        request.extend_from_slice(b"content-length: ");
        request.extend_from_slice(decimal(body.len() as u64, &mut length));
        request.extend_from_slice(b"\r\n\r\n");
        request.extend_from_slice(body);
        self.stream.write_all(request).await?;
        self.read().await
    }

    async fn read(&mut self) -> Result<Answer<'_>> {
        self.answer.clear();
        let head = loop {
            self.more().await?;
            if let Some(end) = memmem::find(&self.answer, b"\r\n\r\n") {
                break end + 4;
            }
        };
        let Head { status, length } = Head::parse(&self.answer[..head])?;
        match length {
            Length::Bytes(length) => {
                while self.answer.len() < head + length {
                    self.more().await?;
                }
                Ok(Answer { status, body: &self.answer[head..head + length] })
            }
            Length::Chunks => {
                self.join_chunks(head).await?;
                Ok(Answer { status, body: &self.joined })
            }
        }
    }

    async fn join_chunks(&mut self, mut at: usize) -> Result<()> {
        self.joined.clear();
        loop {
            let line = loop {
                if let Some(end) = memmem::find(&self.answer[at..], b"\r\n") {
                    break at..at + end;
                }
                self.more().await?;
            };
            let next = line.end + 2;
            let size = std::str::from_utf8(&self.answer[line])?.split(';').next().unwrap_or_default().trim();
            let size = usize::from_str_radix(size, 16).context("the size of a chunk")?;
            while self.answer.len() < next + size + 2 {
                self.more().await?;
            }
            if size == 0 {
                return Ok(());
            }
            self.joined.extend_from_slice(&self.answer[next..next + size]);
            at = next + size + 2;
        }
    }

    async fn more(&mut self) -> Result<()> {
        self.answer.reserve(8192);
        if self.stream.read_buf(&mut self.answer).await? == 0 {
            bail!("the connection was closed in the middle of a response");
        }
        Ok(())
    }
}

struct Head {
    status: u16,
    length: Length,
}

enum Length {
    Bytes(usize),
    Chunks,
}

impl Head {
    fn parse(head: &[u8]) -> Result<Self> {
        let text = std::str::from_utf8(head)?;
        let mut lines = text.split("\r\n");
        let status: u16 = lines.next().and_then(|line| line.split(' ').nth(1)).unwrap_or_default().parse()?;
        let mut length = Length::Bytes(0);
        for line in lines {
            let Some((name, value)) = line.split_once(':') else { continue };
            match name.len() {
                14 if name.eq_ignore_ascii_case("content-length") => length = Length::Bytes(value.trim().parse()?),
                17 if name.eq_ignore_ascii_case("transfer-encoding") => length = Length::Chunks,
                _ => {}
            }
        }
        Ok(Self { status, length })
    }
}

/// Writes a decimal number from the end of the buffer.
fn decimal(mut number: u64, buffer: &mut [u8; 20]) -> &[u8] {
    let mut at = buffer.len();
    loop {
        at -= 1;
        buffer[at] = b'0' + (number % 10) as u8;
        number /= 10;
        if number == 0 {
            return &buffer[at..];
        }
    }
}

/// Returns the bytes between `before` and the next `after`, and the rest behind.
pub fn between<'a>(text: &'a [u8], before: &[u8], after: u8) -> Option<(&'a [u8], &'a [u8])> {
    let rest = &text[memmem::find(text, before)? + before.len()..];
    let end = memchr::memchr(after, rest)?;
    Some((&rest[..end], &rest[end + 1..]))
}

/// Whether a server responds to a GET of `path` with 200.
pub async fn is_ready(address: SocketAddr, path: &str) -> bool {
    let Ok(mut http) = Http::connect(address).await else { return false };
    http.send("GET", path, "", b"").await.is_ok_and(|answer| answer.status == 200)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_written_in_decimal() {
        let mut buffer = [0; 20];
        assert_eq!(decimal(0, &mut buffer), b"0");
        assert_eq!(decimal(u64::MAX, &mut buffer), u64::MAX.to_string().as_bytes());
    }

    #[tokio::test]
    async fn responses_are_read_with_a_length_and_in_chunks() {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let served = tokio::spawn(async move {
            let (mut stream, _) = listener.accept().await.unwrap();
            let mut request = vec![0; 1024];
            for answer in [
                ["HTTP/1.1 201 Created\r\nContent-Len", "gth: 5\r\n\r\nhe", "llo"],
                ["HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nab", "c\r\n2;x=y\r\nde\r", "\n0\r\n\r\n"],
                ["HTTP/1.1 204 No ", "Content\r\n\r", "\n"],
            ] {
                assert!(stream.read(&mut request).await.unwrap() > 0);
                for piece in answer {
                    stream.write_all(piece.as_bytes()).await.unwrap();
                    stream.flush().await.unwrap();
                    tokio::task::yield_now().await;
                }
            }
        });
        let mut http = Http::connect(address).await.unwrap();
        for (status, body) in [(201, &b"hello"[..]), (200, b"abcde"), (204, b"")] {
            let answer = http.post("/x", b"{}").await.unwrap();
            assert_eq!((answer.status, answer.body), (status, body));
        }
        assert!(http.post("/x", b"{}").await.is_err(), "it was closed");
        served.await.unwrap();
    }

    #[test]
    fn text_between_two_markers_is_found() {
        assert_eq!(between(b"{\"id\":\"a\",\"x\":1}", b"\"id\":\"", b'"'), Some((&b"a"[..], &b",\"x\":1}"[..])));
        assert_eq!(between(b"{}", b"\"id\":\"", b'"'), None);
    }
}
