//! One clock for a history: that of the shard. A moment of a process' own clock maps to an interval, as wide as the
//! process' clock readings leave open.

use std::collections::BTreeMap;

use super::event::ClockReading;
use super::facts::Facts;

/// The most by which a step of Redis' clock may move the shard's clock, in µs: servers measure with the delay of their
/// connections. Less than any step.
const MAX_JUMP_US: i64 = 2_000_000;

/// Readings with at most this error bound, in µs, show by how much the clock fell.
const GOOD_US: i64 = 2000;
/// Times are compared with others at most this far away, in µs: a lease and its outages are shorter.
const NEARBY_US: i64 = 15_000_000;

/// The time of an event, in µs of the shard's clock: not before `from`, not after `to`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Moment {
    pub from: i64,
    pub to: i64,
}

/// By how much the shard's clock was ahead of a process' own, in µs.
#[derive(Clone, Copy, Debug)]
struct Offset {
    at: i64,
    least: i64,
    most: i64,
}

impl Offset {
    fn is_good(&self) -> bool {
        self.most - self.least <= 2 * GOOD_US
    }
}

/// The readings of each process, in the order of their times.
///
/// Between two readings the offset is one of both, or between them: it changes when a server makes up for a step of Redis'
/// clock, and no script runs until then.
#[derive(Debug, Default)]
pub struct Clocks(BTreeMap<String, Vec<Offset>>);

impl Clocks {
    /// Adds a reading. The readings of one process come in order.
    pub fn read(&mut self, process: &str, at: i64, reading: ClockReading) {
        let ahead = reading.time_us - at;
        let offset = Offset { at, least: ahead - reading.within_us, most: ahead + reading.within_us };
        self.0.entry(process.to_owned()).or_default().push(offset);
    }

    /// A process without a clock reading uses the shard's clock, as hand-written histories do.
    pub fn moment(&self, process: &str, at: i64) -> Moment {
        let offsets = self.0.get(process).map(Vec::as_slice).unwrap_or_default();
        let next = offsets.partition_point(|offset| offset.at <= at);
        let around = &offsets[next.saturating_sub(1)..offsets.len().min(next + 1)];
        let least = around.iter().map(|offset| offset.least).min().unwrap_or_default();
        let most = around.iter().map(|offset| offset.most).max().unwrap_or_default();
        let slack = self.slack(process, at);
        Moment { from: at + least - slack, to: at + most + slack }
    }

    /// Returns by how many µs the shard's clock fell near a moment: of two times of a reply that are closer than that, the
    /// earlier may be the later.
    pub fn slack(&self, process: &str, at: i64) -> i64 {
        let offsets = self.0.get(process).map(Vec::as_slice).unwrap_or_default();
        let near = |offset: &&Offset| (offset.at - at).abs() <= NEARBY_US;
        let from = offsets.partition_point(|offset| offset.at < at - NEARBY_US);
        let mut good = offsets[from..].iter().take_while(near).filter(|offset| offset.is_good());
        let Some(first) = good.next() else { return 0 };
        let (mut highest, mut fall) = (first, 0);
        for offset in good {
            if highest.least > offset.most {
                fall = fall.max(highest.most - offset.least);
            } else if offset.least > highest.least {
                highest = offset;
            }
        }
        fall
    }

    /// Returns the jumps of the shard's clock against the processes' own: the times of the two readings around each, and
    /// the least by which the clock jumped.
    ///
    /// The clock may fall behind by the time between two readings: while no server reaches Redis, it may be at rest.
    pub fn jumps(&self) -> Vec<(i64, i64, i64)> {
        let pairs = self.0.values().flat_map(|offsets| offsets.windows(2));
        let jumps = pairs.map(|pair| {
            let ahead = (pair[1].least - pair[0].most).max(0);
            let behind = (pair[0].least - pair[1].most - (pair[1].at - pair[0].at)).max(0);
            (pair[0].at, pair[1].at, ahead - behind)
        });
        jumps.filter(|(_, _, by)| *by != 0).collect()
    }
}

/// Guarantees: the shard's clock runs as fast as a clock that is never set, and does not go back, whatever is done to
/// Redis' clock. So leases and delays, which the other checks judge by the shard's clock, have their length.
pub(super) fn clock_keeps_pace(facts: &Facts<'_>) -> Vec<String> {
    facts.work.step();
    let jumps = facts.jumps.iter().filter(|(_, _, by)| by.abs() > MAX_JUMP_US);
    jumps.map(|(from, to, by)| format!("the shard's clock jumped by {by} µs between {from} and {to}")).collect()
}
