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

use super::pace::Turn;
use crate::config::Limits;

/// The body came too slowly.
#[derive(Clone, Copy, Debug, thiserror::Error)]
#[error("the body came too slowly")]
pub(in crate::api) struct TooSlow;

/// The error of a body that comes.
pub(super) type ArrivalError = Box<dyn std::error::Error + Send + Sync>;

/// A body that comes. It has a time for its beginning, and earns more with what comes.
pub(super) struct Arriving {
    body: Incoming,
    limits: Arc<Limits>,
    begun: Instant,
    received: u64,
    timer: Option<Pin<Box<Sleep>>>,
    /// Told when all of it has come.
    whole: Option<Arc<AtomicBool>>,
}

impl Arriving {
    pub(super) fn new(body: Incoming, limits: &Arc<Limits>, whole: Option<Arc<AtomicBool>>) -> Self {
        Arriving { body, limits: limits.clone(), begun: Instant::now(), received: 0, timer: None, whole }
    }

    fn deadline(&self) -> Instant {
        let earned = Duration::from_millis(self.received.saturating_mul(1000) / self.limits.body_rate);
        self.begun + (self.limits.body + earned).min(self.limits.body_total)
    }
}

impl Body for Arriving {
    type Data = Bytes;
    type Error = ArrivalError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, ArrivalError>>> {
        if let Poll::Ready(frame) = Pin::new(&mut self.body).poll_frame(context) {
            if let Some(data) = frame.as_ref().and_then(|frame| frame.as_ref().ok()?.data_ref()) {
                self.received += data.len() as u64;
            }
            if let Some(whole) = self.whole.as_ref().filter(|_| frame.is_none() || self.body.is_end_stream()) {
                whole.store(true, Ordering::Relaxed);
            }
            // One that never pauses may still take too long.
            let slow = matches!(frame, Some(Ok(_))) && Instant::now() > self.begun + self.limits.body_total;
            return Poll::Ready(if slow {
                Some(Err(TooSlow.into()))
            } else {
                frame.map(|one| one.map_err(Into::into))
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
                return Poll::Ready(Some(Err(TooSlow.into())));
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
pub(super) struct Leaving {
    body: axum::body::Body,
    turn: Turn,
}

impl Leaving {
    pub(super) fn new(body: axum::body::Body, mut turn: Turn) -> Self {
        turn.give();
        Leaving { body, turn }
    }
}

impl Body for Leaving {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        let frame = Pin::new(&mut self.body).poll_frame(context);
        match frame.is_ready() {
            true => self.turn.give(),
            false => self.turn.rest(),
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
