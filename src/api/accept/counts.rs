//! What the door has seen: plain counters, for metrics.

use std::sync::atomic::{AtomicU64, Ordering};

/// Defines the counters and how they are read.
macro_rules! counts {
    ($($(#[doc = $doc:literal])* $name:ident,)*) => {
        /// Counters of one server process.
        #[derive(Default, Debug)]
        pub struct Counts {
            $($(#[doc = $doc])* pub(in crate::api) $name: AtomicU64,)*
        }

        impl Counts {
            /// Each by its name, with what it counts, as it stands.
            pub fn read(&self) -> Vec<(&'static str, &'static str, u64)> {
                vec![$((stringify!($name), concat!($($doc),*).trim_ascii(), self.$name.load(Ordering::Relaxed)),)*]
            }
        }
    };
}

counts! {
    /// Connections that were taken in.
    connections_accepted,
    /// Connections turned away because there were as many as there may be.
    connections_refused_full,
    /// Connections turned away because their address had as many as it may have.
    connections_refused_address,
    /// Closed because no byte came.
    closed_silent,
    /// Closed because a head took too long.
    closed_slow_head,
    /// Closed because nothing was asked for long.
    closed_idle,
    /// Closed because an answer was not read.
    closed_unread,
    /// Asked to end because of their age.
    ended_by_age,
    /// Requests whose body took too long.
    bodies_too_slow,
    /// Requests turned away because bodies took all the memory that they may take.
    bodies_refused,
    /// Heads that were refused because they can be read in two ways, or not at all.
    heads_malformed,
    /// Heads that were refused for their size.
    heads_too_large,
}

/// One more.
pub(in crate::api) fn count(counter: &AtomicU64) {
    counter.fetch_add(1, Ordering::Relaxed);
}
