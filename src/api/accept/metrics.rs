//! What the door has seen: plain counters, for metrics.

use crate::metrics::counters;

counters! {
    /// Counters of one server process.
    pub struct Metrics {
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
}
