//! One clock for a history: Redis' clock. A moment of a process' own clock maps to an interval, as wide as the process'
//! clock readings leave open.

use std::collections::HashMap;

use super::event::ClockReading;

/// The time of an event, in µs of Redis' clock: not before `from`, not after `to`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Moment {
    pub from: i64,
    pub to: i64,
}

/// For each process the smallest and the largest offset of Redis' clock from its own.
///
/// Both clocks belong to one machine, so one reading is valid for a whole run, except after a step of the system clock.
/// A process that reads the clock twice takes both readings together; times between them count against no task.
#[derive(Debug, Default)]
pub struct Clocks(HashMap<String, (i64, i64)>);

impl Clocks {
    pub fn read(&mut self, process: &str, at: i64, reading: ClockReading) {
        let ahead = reading.redis_us - at;
        let (least, most) = (ahead - reading.within_us, ahead + reading.within_us);
        let known = self.0.entry(process.to_owned()).or_insert((least, most));
        *known = (known.0.min(least), known.1.max(most));
    }

    /// A process without a clock reading uses Redis' clock, as hand-written histories do.
    pub fn moment(&self, process: &str, at: i64) -> Moment {
        let (least, most) = self.0.get(process).copied().unwrap_or_default();
        Moment { from: at + least, to: at + most }
    }
}
