//! What this server has dispatched, counted and timed.

use std::time::Duration;

use super::Dispatch;
use crate::measure::{Counter, Distribution, Histogram, PROMPT, SIZE, counters};
use crate::store::signal::Signal;

/// The instruments of the engine.
#[derive(Debug)]
pub struct Meters {
    waiters: Histogram,
    tasks: Histogram,
    handouts: Histogram,
    signals: Signals,
    pub(super) sweeps: Counter,
    pub(super) given_back: Counter,
}

counters! {
    /// Signals of scripts that were heard.
    pub struct Signals {
        /// A queue has something to claim.
        ready,
        /// Something is due earlier than it was.
        due,
        /// A task that is waited for has ended.
        ended,
        /// The connection was made anew: signals may have been missed.
        missed,
    }
}

impl Default for Meters {
    fn default() -> Self {
        Meters {
            waiters: Histogram::new(&SIZE),
            tasks: Histogram::new(&SIZE),
            handouts: Histogram::new(&PROMPT),
            signals: Signals::default(),
            sweeps: Counter::default(),
            given_back: Counter::default(),
        }
    }
}

impl Meters {
    /// A call of a pump looked for so many.
    pub(super) fn looked_for(&self, waiters: usize) {
        self.waiters.observe(waiters);
    }

    /// It brought so many tasks.
    pub(super) fn brought(&self, tasks: usize) {
        self.tasks.observe(tasks);
    }

    /// So many waiters were served, so long after the pump had a reason to look.
    pub(super) fn handed_out(&self, served: usize, after: Duration) {
        self.handouts.observe_times(after, served);
    }

    /// A script said something.
    pub(super) fn heard(&self, signal: &Signal) {
        match signal {
            Signal::Ready { .. } => self.signals.ready.one(),
            Signal::Due { .. } => self.signals.due.one(),
            Signal::Ended(_) => self.signals.ended.one(),
            Signal::Missed => self.signals.missed.one(),
        }
    }

    /// For how many waiters each call of a pump looked.
    pub fn waiters(&self) -> Distribution {
        self.waiters.read()
    }

    /// How many tasks each brought.
    pub fn tasks(&self) -> Distribution {
        self.tasks.read()
    }

    /// From when a pump had a reason to look (a waiter or a hint came, a sweep found something, or the call before left
    /// something) until a waiter had its tasks.
    pub fn handouts(&self) -> Distribution {
        self.handouts.read()
    }

    /// What scripts said.
    pub fn signals(&self) -> &Signals {
        &self.signals
    }

    /// How often shards were looked through for what hints may have missed.
    pub fn sweeps(&self) -> u64 {
        self.sweeps.read()
    }

    /// How many leases were given back that nobody took.
    pub fn given_back(&self) -> u64 {
        self.given_back.read()
    }
}

impl Dispatch {
    /// What was dispatched, counted and timed.
    pub fn meters(&self) -> &Meters {
        &self.meters
    }

    /// How many items went into one call, by verb.
    pub fn gathered(&self) -> [(&'static str, Distribution); 10] {
        [
            ("submit", self.submits.sizes()),
            ("complete", self.completes.sizes()),
            ("fail", self.fails.sizes()),
            ("heartbeat", self.heartbeats.sizes()),
            ("release", self.releases.sizes()),
            ("cancel", self.cancels.sizes()),
            ("retry", self.retries.sizes()),
            ("delete", self.deletes.sizes()),
            ("remember", self.notes.sizes()),
            ("watch", self.watches.sizes()),
        ]
    }
}
