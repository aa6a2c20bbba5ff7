//! The stream to a client: what the server needs of it, and its implementation for TCP.

use std::io::{self, IoSlice};
use std::net::Shutdown;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use socket2::{SockRef, TcpKeepalive};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;

/// TCP keep-alive: after 30 s without traffic the kernel probes the peer every 10 s, and gives up after 3 probes. A
/// machine that has vanished is therefore noticed within a minute, and its long polls end.
const KEEPALIVE_IDLE: Duration = Duration::from_secs(30);
const KEEPALIVE_INTERVAL: Duration = Duration::from_secs(10);
const KEEPALIVE_RETRIES: u32 = 3;

/// A future that completes when the peer has closed its sending side, or all of a connection.
pub(super) type PeerClose = Pin<Box<dyn Future<Output = ()> + Send>>;

/// A byte stream to a client: a TCP socket, or a session over one.
pub(super) trait ClientStream: AsyncRead + AsyncWrite + Send + Unpin {
    /// Returns a future that completes when the peer has closed its sending side, or the connection is broken. The peer may
    /// still read. Reads nothing from the stream.
    fn peer_half_close(&self) -> PeerClose;

    /// Returns a future that completes when the connection is broken: the peer can no longer read.
    fn peer_reset(&self) -> PeerClose;

    /// Makes the close of the connection a reset, which discards the data that the peer has not read.
    fn set_zero_linger(&self);
}

/// A TCP socket. It is shared only with the futures that wait for its peer's close.
#[derive(Debug)]
pub(super) struct Socket(Arc<TcpStream>);

impl Socket {
    pub(super) fn new(stream: TcpStream) -> Self {
        Socket(Arc::new(stream))
    }

    /// Sets the socket's options. A failure is ignored: each of them is an optimisation.
    pub(super) fn configure(&self) {
        let _ = self.0.set_nodelay(true);
        let keepalive = TcpKeepalive::new().with_time(KEEPALIVE_IDLE).with_interval(KEEPALIVE_INTERVAL);
        let _ = SockRef::from(&*self.0).set_tcp_keepalive(&keepalive.with_retries(KEEPALIVE_RETRIES));
    }
}

impl ClientStream for Socket {
    /// On Linux, unread bytes before the close do not hide it. On other systems they do.
    fn peer_half_close(&self) -> PeerClose {
        Box::pin(wait_for_half_close(self.0.clone()))
    }

    fn peer_reset(&self) -> PeerClose {
        let stream = self.0.clone();
        Box::pin(async move { drop(stream.ready(tokio::io::Interest::ERROR).await) })
    }

    fn set_zero_linger(&self) {
        let _ = self.0.set_zero_linger();
    }
}

#[cfg(target_os = "linux")]
async fn wait_for_half_close(stream: Arc<TcpStream>) {
    // Priority readiness covers the peer's close, and urgent data. The latter is never requested.
    if stream.ready(tokio::io::Interest::PRIORITY).await.is_ok_and(|ready| !ready.is_read_closed()) {
        std::future::pending().await
    }
}

#[cfg(not(target_os = "linux"))]
async fn wait_for_half_close(stream: Arc<TcpStream>) {
    if stream.peek(&mut [0]).await.is_ok_and(|length| length > 0) {
        std::future::pending().await
    }
}

impl AsyncRead for Socket {
    fn poll_read(self: Pin<&mut Self>, context: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        loop {
            ready!(self.0.poll_read_ready(context))?;
            match self.0.try_read_buf(buffer) {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                result => return Poll::Ready(result.map(drop)),
            }
        }
    }
}

impl Socket {
    fn poll_write_with(
        &self,
        context: &mut Context<'_>,
        write: impl Fn(&TcpStream) -> io::Result<usize>,
    ) -> Poll<io::Result<usize>> {
        loop {
            ready!(self.0.poll_write_ready(context))?;
            match write(&self.0) {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                result => return Poll::Ready(result),
            }
        }
    }
}

impl AsyncWrite for Socket {
    fn poll_write(self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        self.poll_write_with(context, |stream| stream.try_write(bytes))
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffers: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        self.poll_write_with(context, |stream| stream.try_write_vectored(buffers))
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    /// Returns at once: written bytes are in the kernel's buffer.
    fn poll_flush(self: Pin<&mut Self>, _context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    /// Closes the sending side.
    fn poll_shutdown(self: Pin<&mut Self>, _context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(SockRef::from(&*self.0).shutdown(Shutdown::Write))
    }
}
