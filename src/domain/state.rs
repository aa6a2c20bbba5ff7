//! States of a task and the table of transitions between them.

use std::fmt;

/// State of a task.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum State {
    /// Waits for a delay or a retry.
    Scheduled,
    /// Available to claims.
    Ready,
    /// Held by a worker under a lease.
    Leased,
    /// Finished successfully.
    Completed,
    /// Failed: attempts exhausted, or a failure that is not retried.
    Dead,
    /// Cancelled by a client.
    Cancelled,
    /// Not started before its deadline.
    Expired,
}

/// A transition of a task.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Transition {
    /// Its delay has ended.
    Promote,
    /// A worker claims it.
    Claim,
    /// Its worker reports success.
    Complete,
    /// An attempt failed (reported, or the lease expired) and the next attempt is delayed.
    Retry,
    /// An attempt failed and the next attempt can start immediately.
    RetryNow,
    /// An attempt failed and no attempt follows.
    DeadLetter,
    /// Its worker released it without a delay.
    Release,
    /// Its worker released it with a delay.
    ReleaseLater,
    /// A client cancels it, or its lease ends after a cancel request.
    Cancel,
    /// Its deadline has passed.
    Expire,
    /// A client retries an ended task.
    ManualRetry,
    /// A submit with the same dedupe key restarts its delay. With a delay of 0, promotion follows.
    Debounce,
}

impl Transition {
    /// All transitions.
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
    /// All states, in the order of the API.
    pub const ALL: [State; 7] = [
        State::Scheduled,
        State::Ready,
        State::Leased,
        State::Completed,
        State::Dead,
        State::Cancelled,
        State::Expired,
    ];

    /// Returns the textual form, the same in JSON, Redis and logs.
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

    /// Parses the textual form.
    pub fn parse(text: &str) -> Option<Self> {
        State::ALL.into_iter().find(|state| state.as_str() == text)
    }

    /// Returns whether the state is final, unless a client requests otherwise.
    pub const fn has_ended(self) -> bool {
        match self {
            State::Scheduled | State::Ready | State::Leased => false,
            State::Completed | State::Dead | State::Cancelled | State::Expired => true,
        }
    }

    /// The transition table: the state after `transition`, or `None` if the transition is not possible.
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
