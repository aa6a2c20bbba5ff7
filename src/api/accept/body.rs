//! Bodies as they come and go: one that comes must not take too long, and the end of one that goes is the end of its
//! request.

use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};
use hyper::body::Incoming;
use tokio::time::{Instant, Sleep, sleep_until};

use super::timeouts::RequestGuard;
use crate::config::Limits;

/// The body came too slowly.
#[derive(Clone, Copy, Debug, thiserror::Error)]
#[error("the body came too slowly")]
pub(in crate::api) struct BodyTooSlow;

/// The error of a body that comes.
pub(super) type RequestBodyError = Box<dyn std::error::Error + Send + Sync>;

/// A body that comes. It has a time for its beginning, and earns more with what comes.
pub(super) struct RequestBody {
    body: Incoming,
    limits: Arc<Limits>,
    started_at: Instant,
    received_bytes: u64,
    timer: Option<Pin<Box<Sleep>>>,
    /// Told when all of it has come.
    fully_read: Option<Arc<AtomicBool>>,
}

impl RequestBody {
    pub(super) fn new(body: Incoming, limits: &Arc<Limits>, fully_read: Option<Arc<AtomicBool>>) -> Self {
        RequestBody {
            body,
            limits: limits.clone(),
            started_at: Instant::now(),
            received_bytes: 0,
            timer: None,
            fully_read,
        }
    }

    fn deadline(&self) -> Instant {
        let earned =
            Duration::from_millis(self.received_bytes.saturating_mul(1000) / self.limits.min_body_bytes_per_second);
        self.started_at + (self.limits.body_timeout + earned).min(self.limits.max_body_timeout)
    }
}

impl Body for RequestBody {
    type Data = Bytes;
    type Error = RequestBodyError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, RequestBodyError>>> {
        if let Poll::Ready(frame) = Pin::new(&mut self.body).poll_frame(context) {
            if let Some(data) = frame.as_ref().and_then(|frame| frame.as_ref().ok()?.data_ref()) {
                self.received_bytes += data.len() as u64;
            }
            if let Some(fully_read) = self.fully_read.as_ref().filter(|_| frame.is_none() || self.body.is_end_stream())
            {
                fully_read.store(true, Ordering::Relaxed);
            }
            // One that never pauses may still take too long.
            let is_too_slow =
                matches!(frame, Some(Ok(_))) && Instant::now() > self.started_at + self.limits.max_body_timeout;
            return Poll::Ready(if is_too_slow {
                Some(Err(BodyTooSlow.into()))
            } else {
                frame.map(|result| result.map_err(Into::into))
            });
        }
        loop {
            let deadline = self.deadline();
            let timer = self.timer.get_or_insert_with(|| Box::pin(sleep_until(deadline)));
            if timer.deadline() < deadline {
                timer.as_mut().reset(deadline);
            }
            ready!(timer.as_mut().poll(context));
            if self.deadline() <= Instant::now() {
                return Poll::Ready(Some(Err(BodyTooSlow.into())));
            }
        }
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

/// The body of an answer. Its request has ended when the library has let go of it; while it has nothing to give, nobody
/// has anything to take.
pub(super) struct ResponseBody {
    body: axum::body::Body,
    guard: RequestGuard,
}

impl ResponseBody {
    pub(super) fn new(body: axum::body::Body, mut guard: RequestGuard) -> Self {
        guard.response_pending();
        ResponseBody { body, guard }
    }
}

impl Body for ResponseBody {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        let frame = Pin::new(&mut self.body).poll_frame(context);
        match frame.is_ready() {
            true => self.guard.response_pending(),
            false => self.guard.response_drained(),
        }
        frame
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}
