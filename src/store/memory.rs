//! The memory of a shard's Redis, as this server last read it, and how much of it is history: ended tasks.

use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use super::caller::Caller;
use crate::domain::queue::QueueName;

/// Above this share of `maxmemory`, in percent, ended tasks are deleted.
pub const SHORT_PERCENT: u64 = 90;
/// Upkeep deletes ended tasks until no more than this share is in use.
pub const RELIEVED_PERCENT: u64 = 85;
/// A rejected call deletes ended tasks until no more than this share is in use. Upkeep deletes the rest.
pub const ROOM_PERCENT: u64 = 95;

/// A reading of the memory of a master.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct MemoryReading {
    /// Identifies the running master.
    pub master: String,
    /// Bytes in use.
    pub used: u64,
    /// The limit in bytes, `maxmemory`; 0: none.
    pub max: u64,
}

impl MemoryReading {
    /// Parses the reply to INFO. `None` without a figure of memory.
    pub(super) fn parse(info: &str) -> Option<Self> {
        let value = |name: &str| info.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'));
        Some(MemoryReading {
            master: value("run_id").unwrap_or_default().trim().to_owned(),
            used: value("used_memory")?.trim().parse().ok()?,
            max: value("maxmemory")?.trim().parse().ok()?,
        })
    }

    /// Whether more than this share of the limit is in use. False without a limit.
    pub fn is_above(&self, percent: u64) -> bool {
        self.max > 0 && self.used.saturating_mul(100) > self.max.saturating_mul(percent)
    }
}

/// The ended tasks of a shard: their number, and an estimate of their bytes.
#[derive(Clone, Copy, PartialEq, Default, Debug)]
pub struct History {
    /// Ended tasks.
    pub tasks: u64,
    /// Their bytes, indexes included: the mean of samples times the number.
    pub bytes: u64,
}

/// The memory of all masters.
#[derive(Clone, Copy, PartialEq, Debug)]
pub struct MemoryTotals {
    /// Bytes in use.
    pub used: u64,
    /// The sum of the limits; `None` if a master has none.
    pub max: Option<u64>,
    /// The used share of the limit of the fullest master; `None` if no master has a limit.
    pub fullest: Option<f64>,
    /// The history of all shards.
    pub history: History,
}

/// Sums the last readings of all shards, each master once. `None` before the first reading.
pub fn memory_totals<'a>(gauges: impl Iterator<Item = &'a MemoryGauge>) -> Option<MemoryTotals> {
    let mut masters: Vec<MemoryReading> = Vec::new();
    let mut history = History::default();
    for gauge in gauges {
        let State { reading, history: part, .. } = &*gauge.state();
        let part = part.unwrap_or_default();
        history = History { tasks: history.tasks + part.tasks, bytes: history.bytes + part.bytes };
        if let Some(reading) = reading.as_ref()
            && !masters.iter().any(|other| other.master == reading.master)
        {
            masters.push(reading.clone());
        }
    }
    let share = |reading: &MemoryReading| (reading.max > 0).then(|| reading.used as f64 / reading.max as f64);
    (!masters.is_empty()).then(|| MemoryTotals {
        used: masters.iter().map(|reading| reading.used).sum(),
        max: masters.iter().map(|reading| Some(reading.max).filter(|max| *max > 0)).sum(),
        fullest: masters.iter().filter_map(share).reduce(f64::max),
        history,
    })
}

/// The memory of one shard, as a server last read it.
#[derive(Default, Debug)]
pub struct MemoryGauge {
    /// Tasks of the first call that makes room. Each further call takes twice as many.
    pub(super) first_batch: usize,
    state: Mutex<State>,
    /// The caller that deletes ended tasks to make room; locked meanwhile.
    pub(super) making_room: tokio::sync::Mutex<Caller>,
}

#[derive(Default, Debug)]
struct State {
    reading: Option<MemoryReading>,
    history: Option<History>,
    /// The mean size of an ended task, over samples.
    mean_bytes: Option<f64>,
    sampled_at: Option<Instant>,
    /// The end of the last making of room: when, and the number of tasks it deleted.
    made_room: Option<(Instant, u64)>,
    /// When memory was last short, or tasks were deleted to make room.
    short_at: Option<Instant>,
    /// The queue after which the next making of room begins.
    after: Option<QueueName>,
}

/// The tasks that all shards together delete first when memory is short.
const FIRST_TASKS: u16 = 16;
/// The part of the last sample in the mean.
const SAMPLE_WEIGHT: f64 = 0.2;

impl MemoryGauge {
    /// Returns the gauge of one of `shards` shards, which may make room at the same time.
    pub fn new(shards: u16) -> Self {
        MemoryGauge { first_batch: usize::from(FIRST_TASKS / shards).max(1), ..MemoryGauge::default() }
    }

    fn state(&self) -> std::sync::MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Returns the last reading.
    pub fn reading(&self) -> Option<MemoryReading> {
        self.state().reading.clone()
    }

    /// Returns the last estimate of the history.
    pub fn history(&self) -> Option<History> {
        self.state().history
    }

    /// Whether memory was short, or tasks were deleted to make room, within this time.
    pub fn was_short_within(&self, time: Duration) -> bool {
        self.state().short_at.is_some_and(|at| at.elapsed() < time)
    }

    /// Keeps a reading of the master.
    pub fn set_reading(&self, reading: MemoryReading) {
        let mut state = self.state();
        if reading.is_above(RELIEVED_PERCENT) {
            state.short_at = Some(Instant::now());
        }
        state.reading = Some(reading);
    }

    /// Records a sample of `sampled` ended tasks of `bytes` in all, out of `tasks`.
    pub(super) fn add_sample(&self, tasks: u64, sampled: u64, bytes: u64) {
        let mut state = self.state();
        if sampled > 0 {
            let mean = bytes as f64 / sampled as f64;
            state.mean_bytes = Some(state.mean_bytes.map_or(mean, |old| old + SAMPLE_WEIGHT * (mean - old)));
        }
        let bytes = (state.mean_bytes.unwrap_or(0.0) * tasks as f64) as u64;
        state.history = Some(History { tasks, bytes });
        state.sampled_at = Some(Instant::now());
    }

    /// Whether the last sample is older than this, or missing.
    pub(super) fn needs_sample(&self, interval: Duration) -> bool {
        self.state().sampled_at.is_none_or(|at| at.elapsed() >= interval)
    }

    /// Returns the number of tasks that the last making of room deleted, if it ended after `since`.
    pub(super) fn made_room_since(&self, since: Instant) -> Option<u64> {
        self.state().made_room.filter(|(at, _)| *at >= since).map(|(_, deleted)| deleted)
    }

    pub(super) fn set_made_room(&self, deleted: u64) {
        let mut state = self.state();
        let now = Instant::now();
        state.made_room = Some((now, deleted));
        if deleted > 0 {
            state.short_at = Some(now);
        }
    }

    pub(super) fn after(&self) -> Option<QueueName> {
        self.state().after.clone()
    }

    pub(super) fn set_after(&self, after: Option<QueueName>) {
        self.state().after = after;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn memory_is_read_from_info_and_unlimited_memory_is_never_short() {
        let info = "# Server\r\nrun_id:ab\r\n# Memory\r\nused_memory:95\r\nused_memory_rss:200\r\nmaxmemory:100\r\n";
        let reading = MemoryReading::parse(info).unwrap();
        assert_eq!(reading, MemoryReading { master: "ab".into(), used: 95, max: 100 });
        assert!(reading.is_above(90) && !reading.is_above(95));
        assert!(!MemoryReading { max: 0, ..reading }.is_above(90));
        assert_eq!(MemoryReading::parse("# Memory\r\n"), None);
    }

    #[test]
    fn totals_count_each_master_once() {
        let gauges: Vec<MemoryGauge> = (0..3).map(|_| MemoryGauge::default()).collect();
        assert_eq!(memory_totals(gauges.iter()), None);
        for (gauge, (master, used, max)) in gauges.iter().zip([("a", 10, 40), ("a", 10, 40), ("b", 30, 40)]) {
            gauge.set_reading(MemoryReading { master: master.into(), used, max });
            gauge.add_sample(2, 1, 3);
        }
        let history = History { tasks: 6, bytes: 18 };
        let totals = MemoryTotals { used: 40, max: Some(80), fullest: Some(0.75), history };
        assert_eq!(memory_totals(gauges.iter()), Some(totals));
        gauges[2].set_reading(MemoryReading { master: "b".into(), used: 30, max: 0 });
        let totals = memory_totals(gauges.iter()).unwrap();
        assert_eq!((totals.max, totals.fullest), (None, Some(0.25)));
    }

    #[test]
    fn history_is_estimated_from_samples() {
        let gauge = MemoryGauge::default();
        gauge.add_sample(1000, 10, 5000);
        assert_eq!(gauge.history(), Some(History { tasks: 1000, bytes: 500_000 }));
        gauge.add_sample(100, 10, 10_000);
        assert_eq!(gauge.history(), Some(History { tasks: 100, bytes: 60_000 }));
        gauge.add_sample(0, 0, 0);
        assert_eq!(gauge.history(), Some(History::default()));
    }
}
