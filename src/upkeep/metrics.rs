//! Metrics of upkeep, by job.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use super::job::{Interval, Job};
use crate::domain::time::TimestampMs;
use crate::metrics::{Counter, Histogram, HistogramSnapshot, LAG_BUCKETS, LATENCY_BUCKETS};
use crate::store::Error;
use crate::store::views::next_due::NextDue;

/// Minimum time between two warnings of one job. An outage fails every run.
const WARNING_INTERVAL: Duration = Duration::from_secs(60);

/// Metrics of all jobs of a server.
#[derive(Debug)]
pub struct Metrics {
    pub(super) jobs: Vec<Arc<JobMetrics>>,
}

/// Metrics of one job, of all its loops.
#[derive(Debug)]
pub(super) struct JobMetrics {
    name: &'static str,
    /// Of a job with [`Interval::WhenDue`].
    lag: Option<Histogram>,
    run_duration: Histogram,
    failures: Counter,
    warned_at: Mutex<Option<Instant>>,
}

impl Metrics {
    pub(super) fn new(jobs: &[Job]) -> Self {
        let metrics = |job: &Job| {
            Arc::new(JobMetrics {
                name: job.name,
                lag: matches!(job.interval, Interval::WhenDue(_)).then(|| Histogram::new(&LAG_BUCKETS)),
                run_duration: Histogram::new(&LATENCY_BUCKETS),
                failures: Counter::default(),
                warned_at: Mutex::default(),
            })
        };
        Metrics { jobs: jobs.iter().map(metrics).collect() }
    }

    /// Returns, by job, the time from due to run.
    pub fn lags(&self) -> Vec<(&'static str, HistogramSnapshot)> {
        self.jobs.iter().filter_map(|job| Some((job.name, job.lag.as_ref()?.read()))).collect()
    }

    /// Returns, by job, the duration of its runs, including failed ones.
    pub fn run_durations(&self) -> Vec<(&'static str, HistogramSnapshot)> {
        self.jobs.iter().map(|job| (job.name, job.run_duration.read())).collect()
    }

    /// Returns, by job, the number of failed runs.
    pub fn failures(&self) -> Vec<(&'static str, u64)> {
        self.jobs.iter().map(|job| (job.name, job.failures.read())).collect()
    }
}

impl JobMetrics {
    /// Records the lag of a run that became due at `due_at` of a reading.
    pub(super) fn record_lag(&self, reading: &NextDue, due_at: fn(&NextDue) -> Option<TimestampMs>) {
        let lag = due_at(reading).and_then(|due_at| u64::try_from(reading.now.0.saturating_sub(due_at.0)).ok());
        if let (Some(histogram), Some(lag)) = (&self.lag, lag) {
            histogram.observe_duration(Duration::from_millis(lag));
        }
    }

    /// Records the duration of a run, including a failed one.
    pub(super) fn record_run(&self, duration: Duration) {
        self.run_duration.observe_duration(duration);
    }

    /// Counts a failed run, and logs it at most once per minute. `shard`: of a job with [`Scope::Shard`](super::job::Scope).
    pub(super) fn record_failure(&self, error: &Error, shard: Option<usize>) {
        self.failures.inc();
        let mut warned_at = self.warned_at.lock().unwrap_or_else(PoisonError::into_inner);
        if warned_at.is_none_or(|warned_at| warned_at.elapsed() >= WARNING_INTERVAL) {
            *warned_at = Some(Instant::now());
            tracing::warn!(%error, job = self.name, shard, failures = self.failures.read(), "upkeep job failed");
        }
    }
}
