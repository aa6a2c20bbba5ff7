//! What a connection is at, and until when it has to get on: each bound on time that concerns a connection as a whole
//! stands here. Bodies, of which HTTP/2 has several at once, have their own (`body`).

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::Waker;
use std::time::Duration;

use tokio::time::Instant;

use crate::config::Limits;

/// How long a connection that was opened while the server closes may take to begin its first request.
const CLOSING_FIRST_REQUEST_TIMEOUT: Duration = Duration::from_secs(1);

/// What is due when its time has come.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Timeout {
    /// No byte has come.
    ConnectIdle,
    /// A head has not ended.
    Head,
    /// Nothing was asked for.
    Idle,
    /// An answer was not read.
    Write,
    /// The connection is old enough: not a fault, it should end when it can.
    MaxAge,
}

/// What a connection is at.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Phase {
    /// Nothing has come.
    Opened,
    /// Part of a head has come.
    Head,
    /// A request is being served, which takes as long as it takes.
    Serving,
    /// All that was asked for is answered.
    Idle,
}

#[derive(Debug)]
struct State {
    phase: Phase,
    phase_started_at: Instant,
    /// Requests under way.
    active_requests: usize,
    /// Those of whose answer something has been given, and not been taken.
    pending_responses: usize,
    /// Since when no answer has been taken, where there is one.
    response_stalled_since: Option<Instant>,
    /// Since when the socket takes nothing.
    socket_blocked_since: Option<Instant>,
    /// When it is old.
    max_age_at: Option<Instant>,
    /// It ends as soon as no request is under way.
    closing: bool,
    waker: Option<Waker>,
}

/// The pace of one connection, known to those who serve it.
#[derive(Debug)]
pub(super) struct ConnectionTimeouts {
    limits: Arc<Limits>,
    state: Mutex<State>,
}

/// A request under way. It ends when this is dropped: with its answer's last byte, or with the request.
#[derive(Debug)]
pub(super) struct RequestGuard {
    timeouts: Arc<ConnectionTimeouts>,
    is_response_pending: bool,
}

impl ConnectionTimeouts {
    pub(super) fn new(limits: &Arc<Limits>) -> Arc<Self> {
        let now = Instant::now();
        // Connections that came together do not all go together.
        let max_age_at = limits.max_connection_age.map(|age| now + age.mul_f64(rand::random_range(0.9..1.1)));
        let state = State {
            phase: Phase::Opened,
            phase_started_at: now,
            active_requests: 0,
            pending_responses: 0,
            response_stalled_since: None,
            socket_blocked_since: None,
            max_age_at,
            closing: false,
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

    /// The first bytes of a head have come.
    pub(super) fn head_started(&self) {
        self.enter_phase(Phase::Head);
    }

    /// A head is complete: a request is coming.
    pub(super) fn head_completed(&self) {
        self.enter_phase(Phase::Serving);
    }

    /// A request is here.
    pub(super) fn begin_request(self: &Arc<Self>) -> RequestGuard {
        self.enter_phase(Phase::Serving);
        self.lock().active_requests += 1;
        RequestGuard { timeouts: self.clone(), is_response_pending: false }
    }

    /// Whether a request is under way; if it is, `waker` is woken when it no longer is.
    pub(super) fn is_serving(&self, waker: &Waker) -> bool {
        let mut state = self.lock();
        let is_serving = state.phase == Phase::Serving;
        if is_serving {
            state.register_waker(waker);
        }
        is_serving
    }

    /// Whether the connection should end now, since it is at no request; if not, `waker` is woken when it should. One
    /// that has just been opened is given a moment: its first request may be on its way.
    pub(super) fn should_close(&self, waker: &Waker) -> bool {
        let mut state = self.lock();
        let should_close = state.closing && state.phase != Phase::Opened;
        if !should_close {
            state.register_waker(waker);
        }
        should_close
    }

    /// Has the connection end as soon as no request is under way.
    pub(super) fn close_when_idle(&self) {
        let mut state = self.lock();
        state.closing = true;
        state.wake();
    }

    /// The socket takes nothing for now, or does again.
    pub(super) fn set_write_blocked(&self, is_blocked: bool) {
        let mut state = self.lock();
        match is_blocked {
            true => drop(state.socket_blocked_since.get_or_insert_with(Instant::now)),
            false => state.socket_blocked_since = None,
        }
    }

    /// What is due next, and when; `waker` is woken when a request ends, after which it may be another time.
    pub(super) fn next_timeout(&self, waker: &Waker) -> Option<(Instant, Timeout)> {
        let limits = &self.limits;
        let mut state = self.lock();
        state.register_waker(waker);
        let expires =
            |since: Option<Instant>, limit: Duration, timeout: Timeout| since.map(|since| (since + limit, timeout));
        let phase_timeout = match state.phase {
            Phase::Opened if state.closing => expires(
                Some(state.phase_started_at),
                limits.connect_idle_timeout.min(CLOSING_FIRST_REQUEST_TIMEOUT),
                Timeout::ConnectIdle,
            ),
            Phase::Opened => expires(Some(state.phase_started_at), limits.connect_idle_timeout, Timeout::ConnectIdle),
            Phase::Head => expires(Some(state.phase_started_at), limits.head_timeout, Timeout::Head),
            Phase::Serving => None,
            Phase::Idle => expires(Some(state.phase_started_at), limits.idle_timeout, Timeout::Idle),
        };
        let write_timeout =
            expires(state.socket_blocked_since.or(state.response_stalled_since), limits.write_timeout, Timeout::Write);
        let max_age = state.max_age_at.map(|deadline| (deadline, Timeout::MaxAge));
        [phase_timeout, write_timeout, max_age].into_iter().flatten().min_by_key(|(deadline, _)| *deadline)
    }

    /// Nobody asks again whether it is old.
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

    /// An answer has been taken, as far as there is one.
    fn response_taken(&mut self) {
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
    /// Whether its answer is the last of the connection.
    pub(super) fn is_last(&self) -> bool {
        self.timeouts.lock().closing
    }

    /// The answer begins, or there is more of it: then what came before has been taken.
    pub(super) fn response_pending(&mut self) {
        let mut state = self.timeouts.lock();
        if std::mem::replace(&mut self.is_response_pending, true) {
            state.response_stalled_since = Some(Instant::now());
        } else {
            state.pending_responses += 1;
            state.response_stalled_since.get_or_insert_with(Instant::now);
        }
    }

    /// All that was given has been taken, and there is nothing more for now.
    pub(super) fn response_drained(&mut self) {
        if std::mem::take(&mut self.is_response_pending) {
            self.timeouts.lock().response_taken();
        }
    }
}

impl Drop for RequestGuard {
    fn drop(&mut self) {
        let mut state = self.timeouts.lock();
        if self.is_response_pending {
            state.response_taken();
        }
        state.active_requests -= 1;
        if state.active_requests == 0 {
            (state.phase, state.phase_started_at) = (Phase::Idle, Instant::now());
        }
        state.wake();
    }
}
