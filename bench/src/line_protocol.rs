//! A raw client of line protocols over one open connection: Faktory's and beanstalkd's. Like `http`, it does the
//! minimum. Several commands may share one write; their replies come in order.

use std::net::SocketAddr;

use anyhow::{Context as _, Result, bail};
use memchr::memmem;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

/// One connection.
pub struct LineConnection {
    stream: TcpStream,
    /// Output of the next `send`.
    pub commands: Vec<u8>,
    answers: Vec<u8>,
    /// Length of the input that has been consumed.
    at: usize,
}

impl LineConnection {
    /// Connects.
    pub async fn connect(address: SocketAddr) -> Result<Self> {
        let stream = TcpStream::connect(address).await.with_context(|| format!("connecting to {address}"))?;
        stream.set_nodelay(true)?;
        Ok(Self { stream, commands: Vec::new(), answers: Vec::new(), at: 0 })
    }

    /// Appends parts of a command to the output.
    pub fn put(&mut self, parts: &[&[u8]]) {
        parts.iter().for_each(|part| self.commands.extend_from_slice(part));
    }

    /// Sends the output.
    pub async fn send(&mut self) -> Result<()> {
        self.answers.drain(..self.at);
        self.at = 0;
        self.stream.write_all(&self.commands).await?;
        self.commands.clear();
        Ok(())
    }

    /// Returns the next line of input, without its end.
    pub async fn line(&mut self) -> Result<&[u8]> {
        let mut from = self.at;
        let end = loop {
            if let Some(end) = memmem::find(&self.answers[from..], b"\r\n") {
                break from + end;
            }
            // A line end may arrive in two pieces.
            from = self.answers.len().saturating_sub(1).max(self.at);
            self.more().await?;
        };
        let line = self.at..end;
        self.at = end + 2;
        Ok(&self.answers[line])
    }

    /// Returns the next `length` bytes, after which a line must end.
    pub async fn bytes(&mut self, length: usize) -> Result<&[u8]> {
        while self.answers.len() < self.at + length + 2 {
            self.more().await?;
        }
        let bytes = self.at..self.at + length;
        self.at = bytes.end + 2;
        Ok(&self.answers[bytes])
    }

    /// Asserts that the next line is `wanted`.
    pub async fn expect(&mut self, wanted: &[u8]) -> Result<()> {
        let line = self.line().await?;
        if line != wanted {
            bail!("replied {} instead of {}", String::from_utf8_lossy(line), String::from_utf8_lossy(wanted));
        }
        Ok(())
    }

    async fn more(&mut self) -> Result<()> {
        self.answers.reserve(8192);
        if self.stream.read_buf(&mut self.answers).await? == 0 {
            bail!("the connection was closed");
        }
        Ok(())
    }
}

/// Parses a decimal number.
pub fn number(text: &[u8]) -> Result<u64> {
    Ok(std::str::from_utf8(text)?.parse()?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn replies_are_read_line_by_line_in_any_pieces() {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let served = tokio::spawn(async move {
            let (mut stream, _) = listener.accept().await.unwrap();
            let mut commands = vec![0; 1024];
            assert_eq!(stream.read(&mut commands).await.unwrap(), 10);
            for piece in ["+O", "K\r", "\n$5\r\nhe", "llo\r", "\n-1\r\n"] {
                stream.write_all(piece.as_bytes()).await.unwrap();
                tokio::task::yield_now().await;
            }
        });
        let mut lines = LineConnection::connect(address).await.unwrap();
        lines.put(&[b"ask", b"\r\n", b"and\r\n"]);
        lines.send().await.unwrap();
        lines.expect(b"+OK").await.unwrap();
        assert_eq!(lines.line().await.unwrap(), b"$5");
        assert_eq!(lines.bytes(5).await.unwrap(), b"hello");
        assert!(lines.expect(b"1").await.unwrap_err().to_string().contains("-1"));
        assert!(lines.line().await.is_err(), "it was closed");
        served.await.unwrap();
    }
}
