//! Degradations: conditions in which the server still serves, and of which an operator must know.
//!
//! `/readyz` lists them, and `slotwheel_degradations` counts them by reason. The part of the program that detects a
//! condition raises it, and clears it at its end. A degradation is logged when it is raised, at most once a minute.

use std::collections::BTreeMap;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use serde::Serialize;

/// The pause between two log lines about one degradation.
const LOG_INTERVAL: Duration = Duration::from_secs(60);

/// Defines [`Reason`].
macro_rules! reasons {
    ($($(#[doc = $doc:literal])* $name:ident = $text:literal;)*) => {
        /// The reason of a degradation.
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
        pub enum Reason {
            $($(#[doc = $doc])* $name,)*
        }

        impl Reason {
            /// All reasons.
            pub const ALL: &'static [Reason] = &[$(Reason::$name,)*];

            /// Returns the reason as in JSON and as a label.
            pub fn as_str(self) -> &'static str {
                match self {
                    $(Reason::$name => $text,)*
                }
            }
        }
    };
}

reasons! {
    /// The user of Redis lacks a permission that only delays work.
    MissingPermission = "missing_permission";
    /// Upkeep skips a queue or an entry that it cannot process.
    UpkeepFailing = "upkeep_failing";
    /// The clock of Redis was set.
    ClockStepped = "clock_stepped";
    /// Redis is short of memory: ended tasks are deleted before the end of their retention.
    MemoryShort = "memory_short";
    /// Log lines were dropped in the last minute.
    LogLinesDropped = "log_lines_dropped";
}

/// One degradation.
#[derive(Clone, PartialEq, Eq, Debug, Serialize)]
pub struct Degradation {
    /// The reason, as [`Reason::as_str`] returns it.
    pub reason: &'static str,
    /// The degraded part: a queue, a shard, a permission.
    pub subject: String,
    /// The consequence, and the remedy.
    pub detail: String,
}

#[derive(Debug)]
struct Raised {
    detail: String,
    logged_at: Instant,
}

/// The current degradations of this server.
#[derive(Default, Debug)]
pub struct Degradations {
    raised: Mutex<BTreeMap<(Reason, String), Raised>>,
}

impl Degradations {
    /// Raises a degradation of `subject`, or replaces its detail.
    pub fn raise(&self, reason: Reason, subject: &str, detail: String) {
        let mut raised = self.raised.lock().unwrap_or_else(PoisonError::into_inner);
        let now = Instant::now();
        let previous = raised.get(&(reason, subject.to_owned()));
        let is_logged = previous.is_none_or(|previous| now - previous.logged_at >= LOG_INTERVAL);
        if is_logged {
            tracing::warn!(reason = reason.as_str(), subject, detail, "degraded");
        }
        let logged_at = previous.filter(|_| !is_logged).map_or(now, |previous| previous.logged_at);
        raised.insert((reason, subject.to_owned()), Raised { detail, logged_at });
    }

    /// Clears the degradation of `subject`, if it was raised.
    pub fn clear(&self, reason: Reason, subject: &str) {
        let mut raised = self.raised.lock().unwrap_or_else(PoisonError::into_inner);
        if raised.remove(&(reason, subject.to_owned())).is_some() {
            tracing::info!(reason = reason.as_str(), subject, "degradation over");
        }
    }

    /// Returns the degradations by reason, then subject.
    pub fn list(&self) -> Vec<Degradation> {
        let raised = self.raised.lock().unwrap_or_else(PoisonError::into_inner);
        let degradation = |((reason, subject), raised): (&(Reason, String), &Raised)| Degradation {
            reason: reason.as_str(),
            subject: subject.clone(),
            detail: raised.detail.clone(),
        };
        raised.iter().map(degradation).collect()
    }

    /// Returns the number of degradations for this reason.
    pub fn count(&self, reason: Reason) -> usize {
        let raised = self.raised.lock().unwrap_or_else(PoisonError::into_inner);
        raised.keys().filter(|(other, _)| *other == reason).count()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn raised_degradation_is_listed_once_until_it_is_cleared() {
        let degradations = Degradations::default();
        degradations.raise(Reason::UpkeepFailing, "b", "first".into());
        degradations.raise(Reason::UpkeepFailing, "b", "second".into());
        degradations.raise(Reason::UpkeepFailing, "a", "first".into());
        let listed: Vec<_> = degradations.list().into_iter().map(|one| (one.subject, one.detail)).collect();
        assert_eq!(listed, [("a".into(), "first".into()), ("b".into(), String::from("second"))]);
        degradations.clear(Reason::UpkeepFailing, "b");
        assert_eq!(degradations.count(Reason::UpkeepFailing), 1);
        assert_eq!(degradations.count(Reason::MemoryShort), 0);
    }
}
