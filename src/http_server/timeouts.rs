//! The timeouts of a connection, and the phase that selects them.
//!
//! Covers every time limit of a connection as a whole. A request body, of which HTTP/2 has several at once, has its own
//! limit (`body`).

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::Waker;
use std::time::Duration;

use tokio::time::Instant;

use crate::config::Limits;

/// Time to the first byte of a connection that was opened while the server closes.
const CLOSING_FIRST_BYTE_TIMEOUT: Duration = Duration::from_secs(1);

/// A time limit of a connection.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Timeout {
    /// No byte has arrived.
    ConnectIdle,
    /// A request head is not complete.
    Head,
    /// No request has arrived.
    Idle,
    /// The client does not read a response.
    Write,
    /// The connection has its maximum age. Not a fault: it closes after the requests in progress.
    MaxAge,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Phase {
    /// No byte has arrived.
    Opened,
    /// Part of a head has arrived.
    Head,
    /// A request is in progress. No timeout applies to the handler.
    Serving,
    /// All requests are answered.
    Idle,
}

#[derive(Debug)]
struct State {
    phase: Phase,
    phase_started_at: Instant,
    /// Requests in progress.
    active_requests: usize,
    /// Requests in progress whose response has data that the library has not written yet.
    pending_responses: usize,
    /// Since when no pending response made progress, if there is one.
    response_stalled_since: Option<Instant>,
    /// Since when the stream accepts no bytes.
    write_blocked_since: Option<Instant>,
    /// When the connection reaches its maximum age.
    max_age_at: Option<Instant>,
    /// Whether the connection closes as soon as no request is in progress.
    is_closing: bool,
    /// Whether a request in progress waits for an event. HTTP/1 alone reads it, with one request at a time.
    is_waiting: bool,
    waker: Option<Waker>,
}

/// The timeouts of one connection, shared by its transport, its requests and its driver.
#[derive(Debug)]
pub(super) struct ConnectionTimeouts {
    limits: Arc<Limits>,
    state: Mutex<State>,
}

/// A request in progress. Dropped with the last byte of its response, or with the request.
#[derive(Debug)]
pub(super) struct RequestGuard {
    timeouts: Arc<ConnectionTimeouts>,
    is_response_pending: bool,
}

/// The handle by which a handler says that its request waits. The server adds it to the extensions of each request.
#[derive(Clone, Debug)]
pub struct LongPoll(Arc<ConnectionTimeouts>);

impl LongPoll {
    /// Begins a wait of unknown length. From now on, a client that closes its sending side ends the request.
    pub fn begin(&self) {
        let mut state = self.0.lock();
        state.is_waiting = true;
        state.wake();
    }
}

impl ConnectionTimeouts {
    pub(super) fn new(limits: &Arc<Limits>) -> Arc<Self> {
        let now = Instant::now();
        // Within 10 % of the limit at random, so that connections opened together do not close together.
        let max_age_at = limits.max_connection_age.map(|age| now + age.mul_f64(rand::random_range(0.9..1.1)));
        let state = State {
            phase: Phase::Opened,
            phase_started_at: now,
            active_requests: 0,
            pending_responses: 0,
            response_stalled_since: None,
            write_blocked_since: None,
            max_age_at,
            is_closing: false,
            is_waiting: false,
            waker: None,
        };
        Arc::new(ConnectionTimeouts { limits: limits.clone(), state: Mutex::new(state) })
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn enter_phase(&self, phase: Phase) {
        let mut state = self.lock();
        if state.phase != phase {
            (state.phase, state.phase_started_at) = (phase, Instant::now());
        }
    }

    /// Starts the timeout of a head: its first bytes have arrived.
    pub(super) fn head_started(&self) {
        self.enter_phase(Phase::Head);
    }

    /// Ends the timeout of a head: a request follows.
    pub(super) fn head_completed(&self) {
        self.enter_phase(Phase::Serving);
    }

    /// Returns the guard of a request that has arrived.
    pub(super) fn begin_request(self: &Arc<Self>) -> RequestGuard {
        self.enter_phase(Phase::Serving);
        self.lock().active_requests += 1;
        RequestGuard { timeouts: self.clone(), is_response_pending: false }
    }

    /// Whether a request is in progress. If so, wakes `waker` when none is.
    pub(super) fn is_serving(&self, waker: &Waker) -> bool {
        let mut state = self.lock();
        let is_serving = state.phase == Phase::Serving;
        if is_serving {
            state.register_waker(waker);
        }
        is_serving
    }

    /// Whether the request in progress waits for an event. If not, wakes `waker` when it does.
    pub(super) fn is_waiting(&self, waker: &Waker) -> bool {
        let mut state = self.lock();
        if !state.is_waiting {
            state.register_waker(waker);
        }
        state.is_waiting
    }

    /// Whether the connection, which has no request in progress, should close now. If not, wakes `waker` when it should.
    /// A connection without a byte so far stays open for its first request.
    pub(super) fn should_close(&self, waker: &Waker) -> bool {
        let mut state = self.lock();
        let should_close = state.is_closing && state.phase != Phase::Opened;
        if !should_close {
            state.register_waker(waker);
        }
        should_close
    }

    /// Closes the connection as soon as no request is in progress.
    pub(super) fn close_when_idle(&self) {
        let mut state = self.lock();
        state.is_closing = true;
        state.wake();
    }

    /// Starts or ends the write timeout: the stream accepts no bytes, or accepts them again.
    pub(super) fn set_write_blocked(&self, is_blocked: bool) {
        let mut state = self.lock();
        match is_blocked {
            true => drop(state.write_blocked_since.get_or_insert_with(Instant::now)),
            false => state.write_blocked_since = None,
        }
    }

    /// Returns the timeout that expires next, and when. Wakes `waker` when a request ends, after which the answer may
    /// differ.
    pub(super) fn next_timeout(&self, waker: &Waker) -> Option<(Instant, Timeout)> {
        let limits = &self.limits;
        let mut state = self.lock();
        state.register_waker(waker);
        let started_at = state.phase_started_at;
        let phase = match state.phase {
            Phase::Opened if state.is_closing => {
                Some((started_at + limits.connect_idle_timeout.min(CLOSING_FIRST_BYTE_TIMEOUT), Timeout::ConnectIdle))
            }
            Phase::Opened => Some((started_at + limits.connect_idle_timeout, Timeout::ConnectIdle)),
            Phase::Head => Some((started_at + limits.head_timeout, Timeout::Head)),
            Phase::Serving => None,
            Phase::Idle => Some((started_at + limits.idle_timeout, Timeout::Idle)),
        };
        let stalled_since = state.write_blocked_since.or(state.response_stalled_since);
        let write = stalled_since.map(|since| (since + limits.write_timeout, Timeout::Write));
        let max_age = state.max_age_at.map(|deadline| (deadline, Timeout::MaxAge));
        [phase, write, max_age].into_iter().flatten().min_by_key(|(deadline, _)| *deadline)
    }

    /// Removes the limit of the connection's age, which has no more effect on a connection that is closing.
    pub(super) fn clear_max_age(&self) {
        self.lock().max_age_at = None;
    }
}

impl State {
    fn register_waker(&mut self, waker: &Waker) {
        if !self.waker.as_ref().is_some_and(|registered| registered.will_wake(waker)) {
            self.waker = Some(waker.clone());
        }
    }

    /// Restarts the write timeout for the pending responses that are left.
    fn response_written(&mut self) {
        self.pending_responses -= 1;
        self.response_stalled_since = (self.pending_responses > 0).then(Instant::now);
    }

    fn wake(&mut self) {
        if let Some(waker) = self.waker.take() {
            waker.wake();
        }
    }
}

impl RequestGuard {
    /// Returns the handle by which the request's handler says that it waits.
    pub(super) fn long_poll(&self) -> LongPoll {
        LongPoll(self.timeouts.clone())
    }

    /// Whether the response is the last of the connection.
    pub(super) fn is_last(&self) -> bool {
        self.timeouts.lock().is_closing
    }

    /// Records that the library takes data of the response. The data before it has been written.
    pub(super) fn response_pending(&mut self) {
        let mut state = self.timeouts.lock();
        if std::mem::replace(&mut self.is_response_pending, true) {
            state.response_stalled_since = Some(Instant::now());
        } else {
            state.pending_responses += 1;
            state.response_stalled_since.get_or_insert_with(Instant::now);
        }
    }

    /// Records that all data of the response so far has been written.
    pub(super) fn response_written(&mut self) {
        if std::mem::take(&mut self.is_response_pending) {
            self.timeouts.lock().response_written();
        }
    }
}

impl Drop for RequestGuard {
    fn drop(&mut self) {
        let mut state = self.timeouts.lock();
        if self.is_response_pending {
            state.response_written();
        }
        state.active_requests -= 1;
        if state.active_requests == 0 {
            (state.phase, state.phase_started_at) = (Phase::Idle, Instant::now());
            state.is_waiting = false;
        }
        state.wake();
    }
}
