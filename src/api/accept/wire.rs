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

use super::chunks::Walk;
use super::head::{self, Flaw, Framing, Search};
use super::pace::Pace;
use crate::config::Limits;

/// What is read of a head, or of chunks, at once.
const PIECE: usize = 4096;
/// What is read of a body at once.
const LARGE_PIECE: usize = 64 * 1024;

/// The protocol that the other side speaks.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Version {
    /// HTTP/1.1 or 1.0.
    One,
    /// HTTP/2 without a word before.
    Two,
}

type Watch = Pin<Box<dyn Future<Output = ()> + Send>>;

/// What may be read.
enum Reading {
    /// A head, which the search looks for.
    Head(Search),
    /// So many bytes of a body.
    Length(u64),
    /// Chunks.
    Chunks(Walk),
    /// Nothing until the request is answered.
    Nothing(Option<Watch>),
    /// Everything: HTTP/2 has its own bounds.
    Everything,
}

/// One socket.
pub(super) struct Wire {
    stream: Arc<TcpStream>,
    pace: Arc<Pace>,
    limits: Arc<Limits>,
    reading: Reading,
    /// Bytes that have been read.
    buffer: BytesMut,
    /// Those of them that the library may have.
    passed: usize,
    /// Whether all that was written has gone to the system.
    flushed: bool,
    /// Why the request was refused. What the other side is told then, the owner of the socket writes.
    flaw: Arc<std::sync::OnceLock<Flaw>>,
}

impl Wire {
    pub(super) fn new(stream: Arc<TcpStream>, pace: Arc<Pace>, limits: Arc<Limits>) -> Self {
        let reading = Reading::Head(Search::default());
        let (buffer, flaw) = (BytesMut::new(), Arc::default());
        Wire { stream, pace, limits, reading, buffer, passed: 0, flushed: true, flaw }
    }

    /// Where to find out later why a request was refused.
    pub(super) fn flaw(&self) -> Arc<std::sync::OnceLock<Flaw>> {
        self.flaw.clone()
    }

    /// The protocol, once the first head has come; `None` if there is none to come.
    pub(super) async fn version(&mut self) -> Option<Version> {
        let open = std::future::poll_fn(|context| self.poll_head(context)).await.unwrap_or(false);
        match self.reading {
            Reading::Everything => Some(Version::Two),
            _ => open.then_some(Version::One),
        }
    }

    /// Reads into the buffer; how much.
    fn poll_more(&mut self, context: &mut Context<'_>) -> Poll<io::Result<usize>> {
        loop {
            ready!(self.stream.poll_read_ready(context))?;
            self.buffer.reserve(PIECE);
            match self.stream.try_read_buf(&mut self.buffer) {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                read => return Poll::Ready(read),
            }
        }
    }

    /// Reads until a head is complete; whether there is one.
    fn poll_head(&mut self, context: &mut Context<'_>) -> Poll<io::Result<bool>> {
        while let Reading::Head(search) = &mut self.reading {
            if !self.buffer.is_empty() {
                self.pace.head_begun();
            }
            match search.go_on(&self.buffer, self.limits.head_bytes) {
                Ok(Some(place)) => {
                    self.buffer.advance(place.start);
                    self.begin(place.len());
                    return Poll::Ready(Ok(self.flaw.get().is_none()));
                }
                Ok(None) => {}
                Err(flaw) => {
                    let _ = self.flaw.set(flaw);
                    return Poll::Ready(Ok(false));
                }
            }
            match self.poll_more(context) {
                Poll::Ready(Ok(0)) => return Poll::Ready(Ok(false)),
                Poll::Ready(Ok(_)) => {}
                Poll::Ready(Err(error)) => return Poll::Ready(Err(error)),
                // What has come by now is still answered.
                Poll::Pending if self.buffer.is_empty() && self.pace.should_end(context.waker()) => {
                    return Poll::Ready(Ok(false));
                }
                Poll::Pending => return Poll::Pending,
            }
        }
        Poll::Ready(Ok(true))
    }

    /// A head of so many bytes is complete.
    fn begin(&mut self, length: usize) {
        let head = self.buffer.get(..length).unwrap_or_default();
        if head == head::HTTP2_PREFACE {
            self.reading = Reading::Everything;
            self.passed = self.buffer.len();
            return;
        }
        match head::examine(head, self.limits.headers) {
            Ok(Framing::Length(0)) => self.reading = Reading::Nothing(None),
            Ok(Framing::Length(length)) => self.reading = Reading::Length(length),
            Ok(Framing::Chunked) => self.reading = Reading::Chunks(Walk::new()),
            Err(flaw) => {
                let _ = self.flaw.set(flaw);
                return;
            }
        }
        self.passed = length;
        self.pace.head_ended();
    }

    /// Hands over what has passed.
    fn hand_over(&mut self, to: &mut ReadBuf<'_>) {
        let length = self.passed.min(to.remaining());
        to.put_slice(self.buffer.get(..length).unwrap_or_default());
        self.buffer.advance(length);
        self.passed -= length;
        if self.buffer.is_empty() {
            // Many connections wait long for an answer: they hold no memory for what may come after it.
            self.buffer = BytesMut::new();
        }
    }

    /// Reads at most `most` bytes past the buffer.
    fn poll_through(
        &mut self,
        context: &mut Context<'_>,
        to: &mut ReadBuf<'_>,
        most: usize,
    ) -> Poll<io::Result<usize>> {
        loop {
            ready!(self.stream.poll_read_ready(context))?;
            let length = most.min(to.remaining()).min(LARGE_PIECE);
            match self.stream.try_read(to.initialize_unfilled_to(length)) {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                read => {
                    let read = read?;
                    to.advance(read);
                    return Poll::Ready(Ok(read));
                }
            }
        }
    }
}

/// Returns when the other side has ended, whatever bytes stand before its end.
#[cfg(target_os = "linux")]
async fn end_of(stream: Arc<TcpStream>) {
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

impl AsyncRead for Wire {
    fn poll_read(mut self: Pin<&mut Self>, context: &mut Context<'_>, to: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let wire = &mut *self;
        loop {
            if wire.passed > 0 {
                wire.hand_over(to);
                return Poll::Ready(Ok(()));
            }
            match &mut wire.reading {
                Reading::Everything => return wire.poll_through(context, to, usize::MAX).map_ok(drop),
                Reading::Head(_) => {
                    if !ready!(wire.poll_head(context))? {
                        return Poll::Ready(Ok(()));
                    }
                }
                Reading::Length(0) => wire.reading = Reading::Nothing(None),
                Reading::Length(left) if wire.buffer.is_empty() => {
                    let most = usize::try_from(*left).unwrap_or(usize::MAX);
                    let read = ready!(wire.poll_through(context, to, most))?;
                    if let Reading::Length(left) = &mut wire.reading {
                        *left -= read as u64;
                    }
                    return Poll::Ready(Ok(()));
                }
                Reading::Length(left) => {
                    wire.passed = usize::try_from(*left).unwrap_or(usize::MAX).min(wire.buffer.len());
                    *left -= wire.passed as u64;
                }
                Reading::Chunks(walk) if walk.is_done() => wire.reading = Reading::Nothing(None),
                Reading::Chunks(walk) if !wire.buffer.is_empty() => {
                    let broken = |_| io::Error::new(io::ErrorKind::InvalidData, "the body is not chunked as it says");
                    wire.passed = walk.go_on(&wire.buffer).map_err(broken)?;
                }
                Reading::Chunks(_) => {
                    if ready!(wire.poll_more(context))? == 0 {
                        return Poll::Ready(Ok(()));
                    }
                }
                Reading::Nothing(watch) => {
                    if !wire.pace.is_serving(context.waker()) && wire.flushed {
                        wire.reading = Reading::Head(Search::default());
                        continue;
                    }
                    return watch
                        .get_or_insert_with(|| Box::pin(end_of(wire.stream.clone())))
                        .as_mut()
                        .poll(context)
                        .map(Ok);
                }
            }
        }
    }
}

impl Wire {
    fn poll_write_with(
        &mut self,
        context: &mut Context<'_>,
        write: impl Fn(&TcpStream) -> io::Result<usize>,
    ) -> Poll<io::Result<usize>> {
        self.flushed = false;
        loop {
            if self.stream.poll_write_ready(context)?.is_pending() {
                self.pace.writing(true);
                return Poll::Pending;
            }
            match write(&self.stream) {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                written => {
                    self.pace.writing(false);
                    return Poll::Ready(written);
                }
            }
        }
    }
}

impl AsyncWrite for Wire {
    fn poll_write(mut self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        self.poll_write_with(context, |stream| stream.try_write(bytes))
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        pieces: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        self.poll_write_with(context, |stream| stream.try_write_vectored(pieces))
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    /// The library calls this when it has written all that it had.
    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        if !self.flushed {
            self.flushed = true;
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
