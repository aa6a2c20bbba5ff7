//! The socket as the HTTP library sees it.
//!
//! Guarantees over HTTP/1: the library gets a head only when it is complete and has passed `head`; nothing that stands
//! behind a request is read before that is answered, so every head is looked at; and while a request is served, the
//! end of the other side is noticed whatever bytes stand before it: that is how a long poll learns that its client has
//! gone.

use std::io::{self, IoSlice};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use bytes::{Buf as _, BytesMut};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;

use super::chunked::ChunkScanner;
use super::request_head;
use super::request_head::{Framing, HeadError, HeadScanner};
use super::timeouts::ConnectionTimeouts;
use crate::config::Limits;

/// What is read of a head, or of chunks, at once.
const HEAD_READ_BYTES: usize = 4096;
/// What is read of a body at once.
const BODY_READ_BYTES: usize = 64 * 1024;

/// The protocol that the other side speaks.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Protocol {
    /// HTTP/1.1 or 1.0.
    Http1,
    /// HTTP/2 without a word before.
    Http2,
}

type PeerClosed = Pin<Box<dyn Future<Output = ()> + Send>>;

/// What may be read.
enum ReadState {
    /// A head, which the search looks for.
    Head(HeadScanner),
    /// So many bytes of a body.
    FixedBody(u64),
    /// Chunks.
    ChunkedBody(ChunkScanner),
    /// Nothing until the request is answered.
    AwaitingResponse(Option<PeerClosed>),
    /// Everything: HTTP/2 has its own bounds.
    Unfiltered,
}

/// One socket.
pub(super) struct GuardedStream {
    stream: Arc<TcpStream>,
    timeouts: Arc<ConnectionTimeouts>,
    limits: Arc<Limits>,
    state: ReadState,
    /// Bytes that have been read.
    buffer: BytesMut,
    /// Those of them that the library may have.
    visible_bytes: usize,
    /// Whether all that was written has gone to the system.
    is_flushed: bool,
    /// Why the request was refused. What the other side is told then, the owner of the socket writes.
    head_error: Arc<std::sync::OnceLock<HeadError>>,
}

impl GuardedStream {
    pub(super) fn new(stream: Arc<TcpStream>, timeouts: Arc<ConnectionTimeouts>, limits: Arc<Limits>) -> Self {
        let state = ReadState::Head(HeadScanner::default());
        let (buffer, head_error) = (BytesMut::new(), Arc::default());
        GuardedStream { stream, timeouts, limits, state, buffer, visible_bytes: 0, is_flushed: true, head_error }
    }

    /// Where to find out later why a request was refused.
    pub(super) fn head_error(&self) -> Arc<std::sync::OnceLock<HeadError>> {
        self.head_error.clone()
    }

    /// The protocol, once the first head has come; `None` if there is none to come.
    pub(super) async fn detect_protocol(&mut self) -> Option<Protocol> {
        let has_head = std::future::poll_fn(|context| self.poll_read_head(context)).await.unwrap_or(false);
        match self.state {
            ReadState::Unfiltered => Some(Protocol::Http2),
            _ => has_head.then_some(Protocol::Http1),
        }
    }

    /// Reads into the buffer; how much.
    fn poll_fill_buffer(&mut self, context: &mut Context<'_>) -> Poll<io::Result<usize>> {
        loop {
            ready!(self.stream.poll_read_ready(context))?;
            self.buffer.reserve(HEAD_READ_BYTES);
            match self.stream.try_read_buf(&mut self.buffer) {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                read => return Poll::Ready(read),
            }
        }
    }

    /// Reads until a head is complete; whether there is one.
    fn poll_read_head(&mut self, context: &mut Context<'_>) -> Poll<io::Result<bool>> {
        while let ReadState::Head(scanner) = &mut self.state {
            if !self.buffer.is_empty() {
                self.timeouts.head_started();
            }
            match scanner.scan(&self.buffer, self.limits.max_head_bytes) {
                Ok(Some(range)) => {
                    self.buffer.advance(range.start);
                    self.start_request(range.len());
                    return Poll::Ready(Ok(self.head_error.get().is_none()));
                }
                Ok(None) => {}
                Err(error) => {
                    let _ = self.head_error.set(error);
                    return Poll::Ready(Ok(false));
                }
            }
            match self.poll_fill_buffer(context) {
                Poll::Ready(Ok(0)) => return Poll::Ready(Ok(false)),
                Poll::Ready(Ok(_)) => {}
                Poll::Ready(Err(error)) => return Poll::Ready(Err(error)),
                // What has come by now is still answered.
                Poll::Pending if self.buffer.is_empty() && self.timeouts.should_close(context.waker()) => {
                    return Poll::Ready(Ok(false));
                }
                Poll::Pending => return Poll::Pending,
            }
        }
        Poll::Ready(Ok(true))
    }

    /// A head of so many bytes is complete.
    fn start_request(&mut self, length: usize) {
        let head = self.buffer.get(..length).unwrap_or_default();
        if head == request_head::HTTP2_PREFACE {
            self.state = ReadState::Unfiltered;
            self.visible_bytes = self.buffer.len();
            return;
        }
        match request_head::validate_head(head, self.limits.max_headers) {
            Ok(Framing::Length(0)) => self.state = ReadState::AwaitingResponse(None),
            Ok(Framing::Length(length)) => self.state = ReadState::FixedBody(length),
            Ok(Framing::Chunked) => self.state = ReadState::ChunkedBody(ChunkScanner::new()),
            Err(error) => {
                let _ = self.head_error.set(error);
                return;
            }
        }
        self.visible_bytes = length;
        self.timeouts.head_completed();
    }

    /// Hands over what has passed.
    fn copy_visible(&mut self, destination: &mut ReadBuf<'_>) {
        let length = self.visible_bytes.min(destination.remaining());
        destination.put_slice(self.buffer.get(..length).unwrap_or_default());
        self.buffer.advance(length);
        self.visible_bytes -= length;
        if self.buffer.is_empty() {
            // Many connections wait long for an answer: they hold no memory for what may come after it.
            self.buffer = BytesMut::new();
        }
    }

    /// Reads at most `most` bytes past the buffer.
    fn poll_read_direct(
        &mut self,
        context: &mut Context<'_>,
        destination: &mut ReadBuf<'_>,
        max_bytes: usize,
    ) -> Poll<io::Result<usize>> {
        loop {
            ready!(self.stream.poll_read_ready(context))?;
            let length = max_bytes.min(destination.remaining()).min(BODY_READ_BYTES);
            match self.stream.try_read(destination.initialize_unfilled_to(length)) {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                read => {
                    let read = read?;
                    destination.advance(read);
                    return Poll::Ready(Ok(read));
                }
            }
        }
    }
}

/// Returns when the other side has ended, whatever bytes stand before its end.
#[cfg(target_os = "linux")]
async fn wait_for_peer_close(stream: Arc<TcpStream>) {
    // This readiness is told of the end alone: urgent bytes, the other thing it stands for, are never asked for.
    if stream.ready(tokio::io::Interest::PRIORITY).await.is_ok_and(|ready| !ready.is_read_closed()) {
        std::future::pending().await
    }
}

/// Returns when the other side has ended, unless bytes stand before its end.
#[cfg(not(target_os = "linux"))]
async fn end_of(stream: Arc<TcpStream>) {
    if stream.peek(&mut [0]).await.is_ok_and(|bytes| bytes > 0) {
        std::future::pending().await
    }
}

impl AsyncRead for GuardedStream {
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
                ReadState::Unfiltered => return this.poll_read_direct(context, destination, usize::MAX).map_ok(drop),
                ReadState::Head(_) => {
                    if !ready!(this.poll_read_head(context))? {
                        return Poll::Ready(Ok(()));
                    }
                }
                ReadState::FixedBody(0) => this.state = ReadState::AwaitingResponse(None),
                ReadState::FixedBody(remaining) if this.buffer.is_empty() => {
                    let max_bytes = usize::try_from(*remaining).unwrap_or(usize::MAX);
                    let read = ready!(this.poll_read_direct(context, destination, max_bytes))?;
                    if let ReadState::FixedBody(remaining) = &mut this.state {
                        *remaining -= read as u64;
                    }
                    return Poll::Ready(Ok(()));
                }
                ReadState::FixedBody(remaining) => {
                    this.visible_bytes = usize::try_from(*remaining).unwrap_or(usize::MAX).min(this.buffer.len());
                    *remaining -= this.visible_bytes as u64;
                }
                ReadState::ChunkedBody(scanner) if scanner.is_finished() => {
                    this.state = ReadState::AwaitingResponse(None)
                }
                ReadState::ChunkedBody(scanner) if !this.buffer.is_empty() => {
                    let invalid_data =
                        |_| io::Error::new(io::ErrorKind::InvalidData, "the body is not chunked as it says");
                    this.visible_bytes = scanner.scan(&this.buffer).map_err(invalid_data)?;
                }
                ReadState::ChunkedBody(_) => {
                    if ready!(this.poll_fill_buffer(context))? == 0 {
                        return Poll::Ready(Ok(()));
                    }
                }
                ReadState::AwaitingResponse(peer_closed) => {
                    if !this.timeouts.is_serving(context.waker()) && this.is_flushed {
                        this.state = ReadState::Head(HeadScanner::default());
                        continue;
                    }
                    return peer_closed
                        .get_or_insert_with(|| Box::pin(wait_for_peer_close(this.stream.clone())))
                        .as_mut()
                        .poll(context)
                        .map(Ok);
                }
            }
        }
    }
}

impl GuardedStream {
    fn poll_write_with(
        &mut self,
        context: &mut Context<'_>,
        write: impl Fn(&TcpStream) -> io::Result<usize>,
    ) -> Poll<io::Result<usize>> {
        self.is_flushed = false;
        loop {
            if self.stream.poll_write_ready(context)?.is_pending() {
                self.timeouts.set_write_blocked(true);
                return Poll::Pending;
            }
            match write(&self.stream) {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                written => {
                    self.timeouts.set_write_blocked(false);
                    return Poll::Ready(written);
                }
            }
        }
    }
}

impl AsyncWrite for GuardedStream {
    fn poll_write(mut self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        self.poll_write_with(context, |stream| stream.try_write(bytes))
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffers: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        self.poll_write_with(context, |stream| stream.try_write_vectored(buffers))
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    /// The library calls this when it has written all that it had.
    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        if !self.is_flushed {
            self.is_flushed = true;
            // The next head may be read now.
            context.waker().wake_by_ref();
        }
        Poll::Ready(Ok(()))
    }

    /// The owner of the socket closes it, in its own way.
    fn poll_shutdown(self: Pin<&mut Self>, _context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }
}
