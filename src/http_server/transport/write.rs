//! Writes of a response: passed through, and watched for a client that does not read.

use std::io::{self, IoSlice};
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use tokio::io::AsyncWrite;

use super::GuardedStream;
use crate::http_server::socket::ClientStream;

impl<S: ClientStream> GuardedStream<S> {
    fn poll_write_with(
        &mut self,
        context: &mut Context<'_>,
        write: impl FnOnce(Pin<&mut S>, &mut Context<'_>) -> Poll<io::Result<usize>>,
    ) -> Poll<io::Result<usize>> {
        self.is_flushed = false;
        let written = write(Pin::new(&mut self.stream), context);
        self.set_write_blocked(written.is_pending());
        written
    }

    fn set_write_blocked(&mut self, is_blocked: bool) {
        if self.is_write_blocked != is_blocked {
            self.is_write_blocked = is_blocked;
            self.timeouts.set_write_blocked(is_blocked);
        }
    }
}

impl<S: ClientStream> AsyncWrite for GuardedStream<S> {
    fn poll_write(mut self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        self.poll_write_with(context, |stream, context| stream.poll_write(context, bytes))
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffers: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        self.poll_write_with(context, |stream, context| stream.poll_write_vectored(context, buffers))
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    /// The library calls this when it has written all that it has.
    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        if !self.is_flushed {
            let flushed = Pin::new(&mut self.stream).poll_flush(context);
            self.set_write_blocked(flushed.is_pending());
            ready!(flushed)?;
            self.is_flushed = true;
            // The next head may be read now.
            context.waker().wake_by_ref();
        }
        Poll::Ready(Ok(()))
    }

    /// Does nothing: the owner of the connection closes it.
    fn poll_shutdown(self: Pin<&mut Self>, _context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }
}
