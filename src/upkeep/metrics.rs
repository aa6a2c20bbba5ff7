//! Metrics of upkeep, by job.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use super::job::{DueJob, Job};
use crate::metrics::{Counter, Histogram, HistogramSnapshot, LAG_BUCKETS, LATENCY_BUCKETS};
use crate::store::Error;

/// Minimum time between two warnings of one job. An outage fails every run.
const WARNING_INTERVAL: Duration = Duration::from_secs(60);

/// Metrics of all jobs of a server.
#[derive(Debug)]
pub struct Metrics {
    /// By position in the list of due jobs, then by position in the list of periodic jobs.
    pub(super) due_jobs: Vec<Arc<JobMetrics>>,
    pub(super) jobs: Vec<Arc<JobMetrics>>,
}

/// Metrics of one job, of all its loops.
#[derive(Debug)]
pub(super) struct JobMetrics {
    name: &'static str,
    /// Of a job that runs when work is due.
    lag: Option<Histogram>,
    run_duration: Histogram,
    failures: Counter,
    postponed: Counter,
    warned_at: Mutex<Option<Instant>>,
}

impl Metrics {
    pub(super) fn new(due_jobs: &[DueJob], jobs: &[Job]) -> Self {
        let metrics = |name, has_lag: bool| {
            Arc::new(JobMetrics {
                name,
                lag: has_lag.then(|| Histogram::new(&LAG_BUCKETS)),
                run_duration: Histogram::new(&LATENCY_BUCKETS),
                failures: Counter::default(),
                postponed: Counter::default(),
                warned_at: Mutex::default(),
            })
        };
        Metrics {
            due_jobs: due_jobs.iter().map(|job| metrics(job.name, true)).collect(),
            jobs: jobs.iter().map(|job| metrics(job.name, false)).collect(),
        }
    }

    fn all(&self) -> impl Iterator<Item = &Arc<JobMetrics>> {
        self.due_jobs.iter().chain(&self.jobs)
    }

    /// Returns, by job, the time from due to the turn that took the work.
    pub fn lags(&self) -> Vec<(&'static str, HistogramSnapshot)> {
        self.all().filter_map(|job| Some((job.name, job.lag.as_ref()?.read()))).collect()
    }

    /// Returns, by job, the duration of its runs, including failed ones.
    pub fn run_durations(&self) -> Vec<(&'static str, HistogramSnapshot)> {
        self.all().map(|job| (job.name, job.run_duration.read())).collect()
    }

    /// Returns, by job, the number of failed runs.
    pub fn failures(&self) -> Vec<(&'static str, u64)> {
        self.all().map(|job| (job.name, job.failures.read())).collect()
    }

    /// Returns, by job, the number of entries postponed because they cannot be processed.
    pub fn postponed(&self) -> Vec<(&'static str, u64)> {
        self.due_jobs.iter().map(|job| (job.name, job.postponed.read())).collect()
    }
}

impl JobMetrics {
    /// Records the lag of a turn.
    pub(super) fn record_lag(&self, lag: Duration) {
        self.lag.iter().for_each(|histogram| histogram.observe_duration(lag));
    }

    /// Counts entries that were postponed.
    pub(super) fn record_postponed(&self, entries: usize) {
        self.postponed.add(entries as u64);
    }

    /// Records the duration of a run, including a failed one.
    pub(super) fn record_run(&self, duration: Duration) {
        self.run_duration.observe_duration(duration);
    }

    /// Counts a failed run, and logs it at most once per minute. `shard`: of a job that covers one.
    pub(super) fn record_failure(&self, error: &Error, shard: Option<usize>) {
        self.failures.inc();
        let mut warned_at = self.warned_at.lock().unwrap_or_else(PoisonError::into_inner);
        if warned_at.is_none_or(|warned_at| warned_at.elapsed() >= WARNING_INTERVAL) {
            *warned_at = Some(Instant::now());
            tracing::warn!(%error, job = self.name, shard, failures = self.failures.read(), "upkeep job failed");
        }
    }
}
