//! The life of a task: seven states and the table of moves between them.

use std::fmt;

/// Where a task stands.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum State {
    /// Waits for its time: a delay or a retry.
    Scheduled,
    /// Can be claimed.
    Ready,
    /// A worker holds it.
    Leased,
    /// Done.
    Completed,
    /// Its attempts are used up, or it failed for good.
    Dead,
    /// Called off.
    Cancelled,
    /// Its deadline passed before it ran.
    Expired,
}

/// What may happen to a task.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Transition {
    /// Its time has come.
    Promote,
    /// A worker takes it.
    Claim,
    /// Its worker finished it.
    Complete,
    /// An attempt ended badly (reported, or the lease ran out) and another one follows.
    Retry,
    /// The same, and it follows at once.
    RetryNow,
    /// An attempt ended badly and none follows.
    DeadLetter,
    /// Its worker gave it back, to be run at once.
    Release,
    /// Its worker gave it back, to be run later.
    ReleaseLater,
    /// A client, or the end of a lease after a client's wish, called it off.
    Cancel,
    /// Its deadline passed.
    Expire,
    /// A client wants an ended task run again.
    ManualRetry,
    /// A submit with the same dedupe key put its delay back: a ready task waits again. One whose new delay is nothing is
    /// promoted.
    Debounce,
}

impl Transition {
    /// All events.
    pub const ALL: [Transition; 12] = [
        Transition::Promote,
        Transition::Claim,
        Transition::Complete,
        Transition::Retry,
        Transition::RetryNow,
        Transition::DeadLetter,
        Transition::Release,
        Transition::ReleaseLater,
        Transition::Cancel,
        Transition::Expire,
        Transition::ManualRetry,
        Transition::Debounce,
    ];
}

impl State {
    /// All states, in the order in which the API shows them.
    pub const ALL: [State; 7] = [
        State::Scheduled,
        State::Ready,
        State::Leased,
        State::Completed,
        State::Dead,
        State::Cancelled,
        State::Expired,
    ];

    /// The one textual form, in JSON, Redis and logs.
    pub const fn as_str(self) -> &'static str {
        match self {
            State::Scheduled => "scheduled",
            State::Ready => "ready",
            State::Leased => "leased",
            State::Completed => "completed",
            State::Dead => "dead",
            State::Cancelled => "cancelled",
            State::Expired => "expired",
        }
    }

    /// Reads the textual form.
    pub fn parse(text: &str) -> Option<Self> {
        State::ALL.into_iter().find(|state| state.as_str() == text)
    }

    /// Whether nothing more happens to the task unless a client asks for it.
    pub const fn has_ended(self) -> bool {
        match self {
            State::Scheduled | State::Ready | State::Leased => false,
            State::Completed | State::Dead | State::Cancelled | State::Expired => true,
        }
    }

    /// The transition table: the state after `event`, or `None` where the event cannot happen.
    pub const fn after(self, transition: Transition) -> Option<State> {
        use State as S;
        use Transition as E;
        match (self, transition) {
            (S::Scheduled, E::Promote) => Some(S::Ready),
            (S::Ready, E::Claim) => Some(S::Leased),
            (S::Leased, E::Complete) => Some(S::Completed),
            (S::Leased, E::Retry | E::ReleaseLater) => Some(S::Scheduled),
            (S::Leased, E::Release | E::RetryNow) => Some(S::Ready),
            (S::Leased, E::DeadLetter) => Some(S::Dead),
            (S::Scheduled | S::Ready | S::Leased, E::Cancel) => Some(S::Cancelled),
            (S::Scheduled | S::Ready, E::Expire) => Some(S::Expired),
            (S::Scheduled | S::Ready, E::Debounce) => Some(S::Scheduled),
            (S::Dead | S::Cancelled | S::Expired, E::ManualRetry) => Some(S::Ready),
            (
                S::Scheduled | S::Ready | S::Leased | S::Completed | S::Dead | S::Cancelled | S::Expired,
                E::Promote
                | E::Claim
                | E::Complete
                | E::Retry
                | E::RetryNow
                | E::ReleaseLater
                | E::Release
                | E::DeadLetter
                | E::Cancel
                | E::Expire
                | E::Debounce
                | E::ManualRetry,
            ) => None,
        }
    }
}

impl fmt::Display for State {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn state_text_round_trips() {
        for state in State::ALL {
            assert_eq!(State::parse(state.as_str()), Some(state));
        }
        assert_eq!(State::parse("Ready"), None);
    }

    #[test]
    fn completed_task_has_no_transition() {
        for transition in
            [Transition::Claim, Transition::Cancel, Transition::ManualRetry, Transition::Expire, Transition::Complete]
        {
            assert_eq!(State::Completed.after(transition), None);
        }
    }

    #[test]
    fn claim_needs_a_ready_task_and_completion_a_leased_one() {
        for state in State::ALL {
            assert_eq!(state.after(Transition::Claim).is_some(), state == State::Ready);
            assert_eq!(state.after(Transition::Complete).is_some(), state == State::Leased);
        }
    }
}
