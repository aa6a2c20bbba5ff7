//! Request and response bodies: the time limit of a request body, and the end of a request with its response body.

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

/// The request body did not arrive in time.
#[derive(Clone, Copy, Debug, thiserror::Error)]
#[error("the request body did not arrive in time")]
pub(crate) struct BodyTooSlow;

type RequestBodyError = Box<dyn std::error::Error + Send + Sync>;

/// A request body with a time limit: `body_timeout`, plus a second for each `min_body_bytes_per_second` received, and at
/// most `max_body_timeout`.
pub(super) struct RequestBody {
    body: Incoming,
    limits: Arc<Limits>,
    /// When it was first waited for.
    started_at: Option<Instant>,
    received_bytes: u64,
    timer: Option<Pin<Box<Sleep>>>,
    /// Set when the whole body has been read.
    fully_read: Option<Arc<AtomicBool>>,
}

impl RequestBody {
    pub(super) fn new(body: Incoming, limits: &Arc<Limits>, fully_read: Option<Arc<AtomicBool>>) -> Self {
        RequestBody { body, limits: limits.clone(), started_at: None, received_bytes: 0, timer: None, fully_read }
    }

    fn started_at(&mut self) -> Instant {
        *self.started_at.get_or_insert_with(Instant::now)
    }

    fn deadline(&mut self) -> Instant {
        let started_at = self.started_at();
        let limits = &self.limits;
        let earned_ms = self.received_bytes.saturating_mul(1000) / limits.min_body_bytes_per_second;
        started_at + (limits.body_timeout + Duration::from_millis(earned_ms)).min(limits.max_body_timeout)
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
            let is_whole = frame.is_none() || self.body.is_end_stream();
            if let Some(fully_read) = self.fully_read.as_ref().filter(|_| is_whole) {
                fully_read.store(true, Ordering::Relaxed);
            }
            // A body that never pauses does not reach the timer below.
            let is_too_slow = !is_whole
                && matches!(frame, Some(Ok(_)))
                && Instant::now() > self.started_at() + self.limits.max_body_timeout;
            return Poll::Ready(match is_too_slow {
                true => Some(Err(BodyTooSlow.into())),
                false => frame.map(|result| result.map_err(Into::into)),
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

/// A response body. Its request ends when the HTTP library drops it. The write timeout does not run while the body has no
/// data.
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
            false => self.guard.response_written(),
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
