//! What a connection is at, and until when it has to get on: each bound on time that concerns a connection as a whole
//! stands here. Bodies, of which HTTP/2 has several at once, have their own (`body`).

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::Waker;
use std::time::Duration;

use tokio::time::Instant;

use crate::config::Limits;

/// How long a connection that was opened while the server closes may take to begin its first request.
const FIRST_REQUEST: Duration = Duration::from_secs(1);

/// What is due when its time has come.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Due {
    /// No byte has come.
    Silent,
    /// A head has not ended.
    SlowHead,
    /// Nothing was asked for.
    Idle,
    /// An answer was not read.
    Unread,
    /// The connection is old enough: not a fault, it should end when it can.
    Old,
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
    since: Instant,
    /// Requests under way.
    turns: usize,
    /// Those of whose answer something has been given, and not been taken.
    answering: usize,
    /// Since when no answer has been taken, where there is one.
    untaken: Option<Instant>,
    /// Since when the socket takes nothing.
    blocked: Option<Instant>,
    /// When it is old.
    old: Option<Instant>,
    /// It ends as soon as no request is under way.
    closing: bool,
    waker: Option<Waker>,
}

/// The pace of one connection, known to those who serve it.
#[derive(Debug)]
pub(super) struct Pace {
    limits: Arc<Limits>,
    state: Mutex<State>,
}

/// A request under way. It ends when this is dropped: with its answer's last byte, or with the request.
#[derive(Debug)]
pub(super) struct Turn {
    pace: Arc<Pace>,
    answering: bool,
}

impl Pace {
    pub(super) fn new(limits: &Arc<Limits>) -> Arc<Self> {
        let now = Instant::now();
        // Connections that came together do not all go together.
        let old = limits.age.map(|age| now + age.mul_f64(rand::random_range(0.9..1.1)));
        let state = State {
            phase: Phase::Opened,
            since: now,
            turns: 0,
            answering: 0,
            untaken: None,
            blocked: None,
            old,
            closing: false,
            waker: None,
        };
        Arc::new(Pace { limits: limits.clone(), state: Mutex::new(state) })
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn enter(&self, phase: Phase) {
        let mut state = self.lock();
        if state.phase != phase {
            (state.phase, state.since) = (phase, Instant::now());
        }
    }

    /// The first bytes of a head have come.
    pub(super) fn head_begun(&self) {
        self.enter(Phase::Head);
    }

    /// A head is complete: a request is coming.
    pub(super) fn head_ended(&self) {
        self.enter(Phase::Serving);
    }

    /// A request is here.
    pub(super) fn turn(self: &Arc<Self>) -> Turn {
        self.enter(Phase::Serving);
        self.lock().turns += 1;
        Turn { pace: self.clone(), answering: false }
    }

    /// Whether a request is under way; if it is, `waker` is woken when it no longer is.
    pub(super) fn is_serving(&self, waker: &Waker) -> bool {
        let mut state = self.lock();
        let serving = state.phase == Phase::Serving;
        if serving {
            state.wake_later(waker);
        }
        serving
    }

    /// Whether the connection should end now, since it is at no request; if not, `waker` is woken when it should. One
    /// that has just been opened is given a moment: its first request may be on its way.
    pub(super) fn should_end(&self, waker: &Waker) -> bool {
        let mut state = self.lock();
        let should = state.closing && state.phase != Phase::Opened;
        if !should {
            state.wake_later(waker);
        }
        should
    }

    /// Has the connection end as soon as no request is under way.
    pub(super) fn close(&self) {
        let mut state = self.lock();
        state.closing = true;
        state.wake();
    }

    /// The socket takes nothing for now, or does again.
    pub(super) fn writing(&self, blocked: bool) {
        let mut state = self.lock();
        match blocked {
            true => drop(state.blocked.get_or_insert_with(Instant::now)),
            false => state.blocked = None,
        }
    }

    /// What is due next, and when; `waker` is woken when a request ends, after which it may be another time.
    pub(super) fn due(&self, waker: &Waker) -> Option<(Instant, Due)> {
        let limits = &self.limits;
        let mut state = self.lock();
        state.wake_later(waker);
        let at = |since: Option<Instant>, bound: Duration, due: Due| since.map(|since| (since + bound, due));
        let own = match state.phase {
            Phase::Opened if state.closing => at(Some(state.since), limits.first_byte.min(FIRST_REQUEST), Due::Silent),
            Phase::Opened => at(Some(state.since), limits.first_byte, Due::Silent),
            Phase::Head => at(Some(state.since), limits.head, Due::SlowHead),
            Phase::Serving => None,
            Phase::Idle => at(Some(state.since), limits.idle, Due::Idle),
        };
        let unread = at(state.blocked.or(state.untaken), limits.unread, Due::Unread);
        let old = state.old.map(|at| (at, Due::Old));
        [own, unread, old].into_iter().flatten().min_by_key(|(at, _)| *at)
    }

    /// Nobody asks again whether it is old.
    pub(super) fn forget_age(&self) {
        self.lock().old = None;
    }
}

impl State {
    fn wake_later(&mut self, waker: &Waker) {
        if !self.waker.as_ref().is_some_and(|own| own.will_wake(waker)) {
            self.waker = Some(waker.clone());
        }
    }

    /// An answer has been taken, as far as there is one.
    fn taken(&mut self) {
        self.answering -= 1;
        self.untaken = (self.answering > 0).then(Instant::now);
    }

    fn wake(&mut self) {
        if let Some(waker) = self.waker.take() {
            waker.wake();
        }
    }
}

impl Turn {
    /// Whether its answer is the last of the connection.
    pub(super) fn is_last(&self) -> bool {
        self.pace.lock().closing
    }

    /// The answer begins, or there is more of it: then what came before has been taken.
    pub(super) fn give(&mut self) {
        let mut state = self.pace.lock();
        if std::mem::replace(&mut self.answering, true) {
            state.untaken = Some(Instant::now());
        } else {
            state.answering += 1;
            state.untaken.get_or_insert_with(Instant::now);
        }
    }

    /// All that was given has been taken, and there is nothing more for now.
    pub(super) fn rest(&mut self) {
        if std::mem::take(&mut self.answering) {
            self.pace.lock().taken();
        }
    }
}

impl Drop for Turn {
    fn drop(&mut self) {
        let mut state = self.pace.lock();
        if self.answering {
            state.taken();
        }
        state.turns -= 1;
        if state.turns == 0 {
            (state.phase, state.since) = (Phase::Idle, Instant::now());
        }
        state.wake();
    }
}
