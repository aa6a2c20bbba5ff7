//! The byte stream as the HTTP library sees it.
//!
//! Generic over the [`ClientStream`] below it.
//!
//! Guarantees for HTTP/1:
//! - The library receives a request head only when it is complete and `request_head` has accepted it.
//! - Nothing after a request is read before the response is sent. So every head is checked.
//! - While a request is in progress, the close of the peer is noticed, even if unread bytes precede it. A broken connection
//!   ends the request. A peer that has closed its sending side only may still read: its request is answered, unless it
//!   waits. A waiting request cannot tell this peer from one that has gone.

mod write;

use std::io;
use std::mem::MaybeUninit;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use bytes::{Buf as _, BytesMut};
use tokio::io::{AsyncRead, ReadBuf};

use super::chunked::ChunkScanner;
use super::request_head::{self, Framing, HeadError, HeadScanner};
use super::socket::{ClientStream, PeerClose};
use super::timeouts::ConnectionTimeouts;
use crate::config::Limits;

/// Bytes of a head, or of chunks, per read.
const HEAD_READ_BYTES: usize = 4096;

/// The protocol that the client speaks.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Protocol {
    /// HTTP/1.1 or HTTP/1.0.
    Http1,
    /// HTTP/2 with prior knowledge.
    Http2,
}

/// The bytes that the transport expects next from the client.
enum ReadState {
    /// A request head.
    Head(HeadScanner),
    /// The rest of a body with a known length, in bytes. None of it is in the buffer.
    FixedBody(u64),
    /// The rest of a chunked body.
    ChunkedBody(ChunkScanner),
    /// Nothing until the request is answered, except the close of the peer's sending side.
    AwaitingResponse(Option<PeerClose>),
    /// Nothing, since the peer has closed its sending side, except that the connection breaks.
    HalfClosed(PeerClose),
    /// Bytes of HTTP/2, which has limits of its own.
    Unfiltered,
}

/// A stream that passes on only what the HTTP library may read.
pub(super) struct GuardedStream<S> {
    stream: S,
    timeouts: Arc<ConnectionTimeouts>,
    limits: Arc<Limits>,
    state: ReadState,
    /// Bytes that have been read from the stream.
    buffer: BytesMut,
    /// How many of them the library may read.
    visible_bytes: usize,
    /// Whether all written bytes have left the stream.
    is_flushed: bool,
    /// Whether the stream accepts no bytes for now.
    is_write_blocked: bool,
    /// Why the request head was rejected. The owner of the connection answers it.
    head_error: Option<HeadError>,
}

impl<S: ClientStream> GuardedStream<S> {
    pub(super) fn new(stream: S, timeouts: Arc<ConnectionTimeouts>, limits: Arc<Limits>) -> Self {
        GuardedStream {
            stream,
            timeouts,
            limits,
            state: ReadState::Head(HeadScanner::default()),
            buffer: BytesMut::new(),
            visible_bytes: 0,
            is_flushed: true,
            is_write_blocked: false,
            head_error: None,
        }
    }

    /// Returns the stream, and why a request head was rejected, if one was.
    pub(super) fn into_parts(self) -> (S, Option<HeadError>) {
        (self.stream, self.head_error)
    }

    /// Reads the first head. Returns its protocol, or `None` if the connection ended or the head was rejected.
    pub(super) async fn detect_protocol(&mut self) -> Option<Protocol> {
        let has_head = std::future::poll_fn(|context| self.poll_read_head(context)).await.unwrap_or(false);
        match self.state {
            ReadState::Unfiltered => Some(Protocol::Http2),
            _ => has_head.then_some(Protocol::Http1),
        }
    }

    /// Reads into the buffer. Returns the number of bytes, 0 at the end of the stream.
    fn poll_fill_buffer(&mut self, context: &mut Context<'_>) -> Poll<io::Result<usize>> {
        // On the stack, so that a connection that waits for input holds no buffer.
        let mut bytes = [MaybeUninit::uninit(); HEAD_READ_BYTES];
        let mut bytes = ReadBuf::uninit(&mut bytes);
        ready!(Pin::new(&mut self.stream).poll_read(context, &mut bytes))?;
        self.buffer.extend_from_slice(bytes.filled());
        Poll::Ready(Ok(bytes.filled().len()))
    }

    /// Reads until a head is complete. Returns whether there is one that was accepted.
    fn poll_read_head(&mut self, context: &mut Context<'_>) -> Poll<io::Result<bool>> {
        while let ReadState::Head(scanner) = &mut self.state {
            match scanner.scan(&self.buffer, self.limits.max_head_bytes) {
                Ok(Some(range)) => {
                    self.buffer.advance(range.start);
                    self.start_request(range.len());
                    return Poll::Ready(Ok(self.head_error.is_none()));
                }
                Ok(None) if self.buffer.is_empty() => {}
                Ok(None) => self.timeouts.head_started(),
                Err(error) => {
                    self.head_error = Some(error);
                    return Poll::Ready(Ok(false));
                }
            }
            match self.poll_fill_buffer(context) {
                Poll::Ready(Ok(0)) => return Poll::Ready(Ok(false)),
                Poll::Ready(Ok(_)) => {}
                Poll::Ready(Err(error)) => return Poll::Ready(Err(error)),
                // A request that has begun to arrive is still served.
                Poll::Pending if self.buffer.is_empty() && self.timeouts.should_close(context.waker()) => {
                    return Poll::Ready(Ok(false));
                }
                Poll::Pending => return Poll::Pending,
            }
        }
        Poll::Ready(Ok(true))
    }

    /// Accepts or rejects the complete head in the first `length` bytes of the buffer.
    fn start_request(&mut self, length: usize) {
        let head = self.buffer.get(..length).unwrap_or_default();
        if head == request_head::HTTP2_PREFACE {
            self.state = ReadState::Unfiltered;
            self.visible_bytes = self.buffer.len();
            return;
        }
        self.visible_bytes = length;
        match request_head::validate_head(head, self.limits.max_headers) {
            Ok(Framing::Length(body_length)) => {
                // The part of the body that has arrived is visible with the head, so that the library reads once.
                let arrived = body_length.min((self.buffer.len() - length) as u64);
                self.state = ReadState::FixedBody(body_length - arrived);
                self.visible_bytes += usize::try_from(arrived).unwrap_or(usize::MAX);
            }
            Ok(Framing::Chunked) => self.state = ReadState::ChunkedBody(ChunkScanner::new()),
            Err(error) => {
                self.visible_bytes = 0;
                self.head_error = Some(error);
                return;
            }
        }
        self.timeouts.head_completed();
    }

    /// Moves visible bytes from the buffer to `destination`.
    fn copy_visible(&mut self, destination: &mut ReadBuf<'_>) {
        let length = self.visible_bytes.min(destination.remaining());
        destination.put_slice(self.buffer.get(..length).unwrap_or_default());
        self.buffer.advance(length);
        self.visible_bytes -= length;
        if self.buffer.is_empty() {
            // Many connections wait long for a response. They hold no buffer meanwhile.
            self.buffer = BytesMut::new();
        }
    }

    /// Reads at most `max_bytes` from the stream to `destination`, past the buffer. Returns the number of bytes.
    fn poll_read_direct(
        &mut self,
        context: &mut Context<'_>,
        destination: &mut ReadBuf<'_>,
        max_bytes: usize,
    ) -> Poll<io::Result<usize>> {
        if destination.remaining() <= max_bytes {
            let length_before = destination.filled().len();
            ready!(Pin::new(&mut self.stream).poll_read(context, destination))?;
            return Poll::Ready(Ok(destination.filled().len() - length_before));
        }
        let mut limited = ReadBuf::new(destination.initialize_unfilled_to(max_bytes));
        ready!(Pin::new(&mut self.stream).poll_read(context, &mut limited))?;
        let length = limited.filled().len();
        destination.advance(length);
        Poll::Ready(Ok(length))
    }
}

impl<S: ClientStream> AsyncRead for GuardedStream<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        destination: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = &mut *self;
        loop {
            if this.visible_bytes > 0 {
                this.copy_visible(destination);
                return Poll::Ready(Ok(()));
            }
            match &mut this.state {
                ReadState::Unfiltered => return Pin::new(&mut this.stream).poll_read(context, destination),
                ReadState::Head(_) => {
                    if !ready!(this.poll_read_head(context))? {
                        return Poll::Ready(Ok(()));
                    }
                }
                ReadState::FixedBody(0) => this.state = ReadState::AwaitingResponse(None),
                ReadState::FixedBody(remaining) => {
                    let max_bytes = usize::try_from(*remaining).unwrap_or(usize::MAX);
                    let length = ready!(this.poll_read_direct(context, destination, max_bytes))?;
                    if let ReadState::FixedBody(remaining) = &mut this.state {
                        *remaining -= length as u64;
                    }
                    return Poll::Ready(Ok(()));
                }
                ReadState::ChunkedBody(scanner) if scanner.is_finished() => {
                    this.state = ReadState::AwaitingResponse(None);
                }
                ReadState::ChunkedBody(scanner) if !this.buffer.is_empty() => {
                    let invalid_data = |error| io::Error::new(io::ErrorKind::InvalidData, error);
                    this.visible_bytes = scanner.scan(&this.buffer).map_err(invalid_data)?;
                }
                ReadState::ChunkedBody(_) => {
                    if ready!(this.poll_fill_buffer(context))? == 0 {
                        return Poll::Ready(Ok(()));
                    }
                }
                ReadState::AwaitingResponse(_) | ReadState::HalfClosed(_)
                    if !this.timeouts.is_serving(context.waker()) && this.is_flushed =>
                {
                    this.state = ReadState::Head(HeadScanner::default());
                }
                ReadState::AwaitingResponse(half_close) => {
                    ready!(half_close.get_or_insert_with(|| this.stream.peer_half_close()).as_mut().poll(context));
                    this.state = ReadState::HalfClosed(this.stream.peer_reset());
                }
                // An empty read is the end of the stream: the library drops the request.
                ReadState::HalfClosed(_) if this.timeouts.is_waiting(context.waker()) => return Poll::Ready(Ok(())),
                ReadState::HalfClosed(reset) => return reset.as_mut().poll(context).map(Ok),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::RawConfig;
    use tokio::io::{AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _, BufStream, DuplexStream};
    use tokio_util::sync::CancellationToken;

    /// A stream in memory that buffers in both directions, as a session over a socket does.
    struct MemoryStream {
        stream: BufStream<DuplexStream>,
        half_closed: CancellationToken,
        reset: CancellationToken,
    }

    impl AsyncRead for MemoryStream {
        fn poll_read(
            mut self: Pin<&mut Self>,
            context: &mut Context<'_>,
            buffer: &mut ReadBuf<'_>,
        ) -> Poll<io::Result<()>> {
            Pin::new(&mut self.stream).poll_read(context, buffer)
        }
    }

    impl AsyncWrite for MemoryStream {
        fn poll_write(mut self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
            Pin::new(&mut self.stream).poll_write(context, bytes)
        }

        fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
            Pin::new(&mut self.stream).poll_flush(context)
        }

        fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
            Pin::new(&mut self.stream).poll_shutdown(context)
        }
    }

    impl ClientStream for MemoryStream {
        fn peer_half_close(&self) -> PeerClose {
            Box::pin(self.half_closed.clone().cancelled_owned())
        }

        fn peer_reset(&self) -> PeerClose {
            Box::pin(self.reset.clone().cancelled_owned())
        }

        fn set_zero_linger(&self) {}
    }

    /// Returns a transport and the client's end of it.
    fn connect() -> (GuardedStream<MemoryStream>, DuplexStream) {
        let limits = Arc::new(RawConfig::default().resolve().unwrap().limits);
        let (client, server) = tokio::io::duplex(1024);
        let [half_closed, reset] = [CancellationToken::new(), CancellationToken::new()];
        let stream = MemoryStream { stream: BufStream::new(server), half_closed, reset };
        (GuardedStream::new(stream, ConnectionTimeouts::new(&limits), limits), client)
    }

    /// Returns a transport with a request in progress, and the client's end.
    async fn serve_request() -> (GuardedStream<MemoryStream>, DuplexStream) {
        let (mut transport, mut client) = connect();
        client.write_all(&HEAD.repeat(2)).await.unwrap();
        assert_eq!(transport.detect_protocol().await, Some(Protocol::Http1));
        transport.read_exact(&mut vec![0; HEAD.len()]).await.unwrap();
        (transport, client)
    }

    const HEAD: &[u8] = b"GET / HTTP/1.1\r\nhost: x\r\n\r\n";

    #[tokio::test]
    async fn pipelined_head_is_readable_only_after_the_flushed_response() {
        let (mut transport, mut client) = serve_request().await;
        let mut head = vec![0; HEAD.len()];
        let request = transport.timeouts.begin_request();
        assert!(futures_util::poll!(std::pin::pin!(transport.read(&mut head))).is_pending());
        transport.write_all(b"HTTP").await.unwrap();
        transport.flush().await.unwrap();
        drop(request);

        let mut response = [0; 4];
        client.read_exact(&mut response).await.unwrap();
        assert_eq!(&response, b"HTTP");
        transport.read_exact(&mut head).await.unwrap();
        assert_eq!(head, HEAD);
    }

    #[tokio::test]
    async fn head_is_readable_with_its_body_and_nothing_behind() {
        let (mut transport, mut client) = connect();
        let request = b"POST / HTTP/1.1\r\nhost: x\r\ncontent-length: 4\r\n\r\nbody";
        client.write_all(&[request, HEAD].concat()).await.unwrap();
        assert_eq!(transport.detect_protocol().await, Some(Protocol::Http1));

        let mut bytes = [0; 200];
        let length = transport.read(&mut bytes).await.unwrap();
        assert_eq!(&bytes[..length], request);
        assert!(futures_util::poll!(std::pin::pin!(transport.read(&mut bytes))).is_pending());
    }

    #[tokio::test]
    async fn broken_connection_ends_the_request_in_progress() {
        let (mut transport, _client) = serve_request().await;
        let _request = transport.timeouts.begin_request();

        transport.stream.half_closed.cancel();
        transport.stream.reset.cancel();

        assert_eq!(transport.read(&mut [0]).await.unwrap(), 0);
    }

    #[tokio::test]
    async fn half_closed_connection_ends_a_request_once_it_waits() {
        let (mut transport, _client) = serve_request().await;
        let request = transport.timeouts.begin_request();

        transport.stream.half_closed.cancel();

        assert!(futures_util::poll!(std::pin::pin!(transport.read(&mut [0]))).is_pending());
        request.long_poll().begin();
        assert_eq!(transport.read(&mut [0]).await.unwrap(), 0);
    }
}
