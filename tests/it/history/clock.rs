//! One clock for a history: Redis'. A moment of a process' own clock is known on it as a span, as wide as the readings
//! that the process took leave open.

use std::collections::HashMap;

use super::event::ClockReading;

/// When something happened, in µs of Redis' clock: not before `from`, not after `to`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Moment {
    pub from: i64,
    pub to: i64,
}

/// By process: the least and the greatest that Redis' clock may be ahead of its own.
///
/// Both are clocks of one machine, so one reading is good for all of a run, but for a step of the system's clock: a
/// process that reads twice takes both readings together, and what lies between them is not held against anybody.
#[derive(Debug, Default)]
pub struct Clocks(HashMap<String, (i64, i64)>);

impl Clocks {
    pub fn read(&mut self, process: &str, at: i64, reading: ClockReading) {
        let ahead = reading.redis_us - at;
        let (least, most) = (ahead - reading.within_us, ahead + reading.within_us);
        let known = self.0.entry(process.to_owned()).or_insert((least, most));
        *known = (known.0.min(least), known.1.max(most));
    }

    /// A process that has read no clock uses Redis': so do texts written by hand.
    pub fn moment(&self, process: &str, at: i64) -> Moment {
        let (least, most) = self.0.get(process).copied().unwrap_or_default();
        Moment { from: at + least, to: at + most }
    }
}
