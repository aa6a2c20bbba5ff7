//! States of a task and the table of transitions between them.

use std::fmt;

/// State of a task.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, PartialOrd, Ord)]
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
    /// Not run before its deadline.
    Expired,
}

/// Defines [`Transition`] and the table of transitions. A row reads: transition, the states before, the state after.
macro_rules! transitions {
    ($($(#[doc = $doc:literal])* $name:ident: $($before:ident)|+ => $after:ident;)*) => {
        /// A transition of a task.
        #[derive(Clone, Copy, PartialEq, Eq, Debug)]
        pub enum Transition {
            $($(#[doc = $doc])* $name,)*
        }

        impl Transition {
            /// All transitions.
            pub const ALL: &[Transition] = &[$(Transition::$name,)*];
        }

        impl State {
            /// Returns the state after `transition`, or `None` if the transition is not possible.
            pub const fn after(self, transition: Transition) -> Option<State> {
                let (is_possible, after) = match transition {
                    $(Transition::$name => (matches!(self, $(State::$before)|+), State::$after),)*
                };
                if is_possible { Some(after) } else { None }
            }
        }
    };
}

transitions! {
    /// Its delay has ended.
    Promote: Scheduled => Ready;
    /// A client ends its delay.
    RunNow: Scheduled => Ready;
    /// A worker claims it.
    Claim: Ready => Leased;
    /// Its worker reports success.
    Complete: Leased => Completed;
    /// An attempt failed (reported, or the lease expired) and the next attempt is delayed.
    Retry: Leased => Scheduled;
    /// An attempt failed and the next attempt can start immediately.
    RetryNow: Leased => Ready;
    /// An attempt failed and no attempt follows, or its worker released it after its last delivery.
    DeadLetter: Leased => Dead;
    /// Its worker or a client released it without a delay.
    Release: Leased => Ready;
    /// Its worker or a client released it with a delay.
    ReleaseLater: Leased => Scheduled;
    /// A client cancels it, or its lease ends after a cancel request.
    Cancel: Scheduled | Ready | Leased => Cancelled;
    /// Its deadline has passed: while it waited, or when its lease ends.
    Expire: Scheduled | Ready | Leased => Expired;
    /// A client retries an ended task.
    ManualRetry: Dead | Cancelled | Expired => Ready;
    /// A submit with the same dedupe key restarts its delay. With a delay of 0, promotion follows.
    Debounce: Scheduled | Ready => Scheduled;
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

    /// Returns whether a task in this state waits to be claimed.
    pub const fn is_waiting(self) -> bool {
        match self {
            State::Scheduled | State::Ready => true,
            State::Leased | State::Completed | State::Dead | State::Cancelled | State::Expired => false,
        }
    }

    /// Returns whether the state is final, unless a client requests otherwise.
    pub const fn has_ended(self) -> bool {
        match self {
            State::Scheduled | State::Ready | State::Leased => false,
            State::Completed | State::Dead | State::Cancelled | State::Expired => true,
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
