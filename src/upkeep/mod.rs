//! Background maintenance: transitions and repairs that no request causes.
//!
//! `JOBS` lists every job with its interval, scope and function. One loop runs the jobs, times each run, and counts its
//! failures by job. Every server runs every job. A job makes bounded calls and is idempotent, so that servers may run it at
//! the same time.

mod dataset_heartbeat;
mod expire_leases;
mod expire_tasks;
mod job;
mod metrics;
mod promote;
mod prune_callers;
mod purge_retention;
mod sample_leases;
mod sync_settings;
mod watch_log;

use std::sync::Arc;
use std::time::{Duration, Instant};

use rand::RngExt as _;
use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::background;
use crate::domain::time::TimestampMs;
use crate::spans::Spans;
use crate::store::dataset::identity::Dataset;
use crate::store::dataset::loss_detector::LossDetector;
use crate::store::notify::wakeups::Wakeup;
use crate::store::views::next_due::{NextDue, next_due};
use crate::store::{Caller, Shard, Store};

use job::{Context, Interval, Job, Scope};
use metrics::JobMetrics;
pub use metrics::Metrics;

/// All jobs. The jobs with [`Interval::WhenDue`] run in this order within a shard.
static JOBS: [Job; 9] = [
    Job {
        name: "expire_tasks",
        interval: Interval::WhenDue(|next| next.expires_at),
        scope: Scope::Shard,
        run: |context| Box::pin(expire_tasks::run(context)),
    },
    Job {
        name: "expire_leases",
        interval: Interval::WhenDue(|next| next.due_at),
        scope: Scope::Shard,
        run: |context| Box::pin(expire_leases::run(context)),
    },
    // After expire_leases: promote also sets the next due time of a queue.
    Job {
        name: "promote",
        interval: Interval::WhenDue(|next| next.due_at),
        scope: Scope::Shard,
        run: |context| Box::pin(promote::run(context)),
    },
    Job {
        name: "purge_retention",
        interval: Interval::WhenDue(|next| next.retention_ends_at),
        scope: Scope::Shard,
        run: |context| Box::pin(purge_retention::run(context)),
    },
    Job {
        name: "dataset_heartbeat",
        interval: Interval::Every(Duration::from_secs(1)),
        scope: Scope::Shard,
        run: |context| Box::pin(dataset_heartbeat::run(context)),
    },
    Job {
        name: "sync_settings",
        interval: Interval::Every(Duration::from_secs(5)),
        scope: Scope::Server,
        run: |context| Box::pin(sync_settings::run(context)),
    },
    Job {
        name: "sample_leases",
        interval: Interval::Every(Duration::from_secs(5)),
        scope: Scope::Server,
        run: |context| Box::pin(sample_leases::run(context)),
    },
    Job {
        name: "prune_callers",
        interval: Interval::Every(Duration::from_secs(600)),
        scope: Scope::Server,
        run: |context| Box::pin(prune_callers::run(context)),
    },
    Job {
        name: "watch_log",
        interval: Interval::Every(Duration::from_secs(5)),
        scope: Scope::Server,
        run: |context| Box::pin(watch_log::run(context)),
    },
];

/// Pause before a job runs again on work that it found and could not do.
const RETRY_DELAY: Duration = Duration::from_millis(200);

/// The upkeep of a server.
#[derive(Debug)]
pub struct Upkeep {
    /// One per shard: ends the pause of the loop of due jobs.
    wakeups: Vec<Arc<Notify>>,
    poll_interval: Duration,
    metrics: Metrics,
}

/// The jobs of one loop.
enum Jobs {
    /// All jobs of a shard with [`Interval::WhenDue`].
    WhenDue(Vec<DueJob>),
    /// One job with [`Interval::Every`].
    Every(&'static Job, Arc<JobMetrics>, Duration),
}

impl Jobs {
    /// Returns the name of the loop.
    fn name(&self) -> &'static str {
        match self {
            Jobs::WhenDue(_) => "due_jobs",
            Jobs::Every(job, _, _) => job.name,
        }
    }
}

struct DueJob {
    job: &'static Job,
    metrics: Arc<JobMetrics>,
    due_at: fn(&NextDue) -> Option<TimestampMs>,
}

impl Upkeep {
    /// Starts the loops of all jobs. They end after `stop`. A shard's due times are read at least every `poll_interval`, varied
    /// by a third. Spans of executions that end with an expired lease go to `spans`.
    pub fn start(
        store: &Store,
        dataset: &Dataset,
        poll_interval: Duration,
        spans: &Spans,
        tasks: &TaskTracker,
        stop: &CancellationToken,
    ) -> Arc<Self> {
        let wakeups = store.shards().iter().map(|_| Arc::default()).collect();
        let upkeep = Arc::new(Upkeep { wakeups, poll_interval, metrics: Metrics::new(&JOBS) });
        let start_loop = |jobs: Jobs, shard: &Shard, wakeup: Arc<Notify>| {
            let context = Context {
                store: store.clone(),
                shard: shard.clone(),
                caller: Caller::new(),
                spans: spans.clone(),
                loss_detector: LossDetector::new(dataset),
                next_due: None,
            };
            let name = jobs.name();
            background::spawn(tasks, name, upkeep.clone().run_loop(jobs, context, wakeup, stop.clone()));
        };
        for (shard, wakeup) in store.shards().iter().zip(&upkeep.wakeups) {
            start_loop(Jobs::WhenDue(upkeep.due_jobs()), shard, wakeup.clone());
        }
        for (job, metrics) in JOBS.iter().zip(&upkeep.metrics.jobs) {
            let Interval::Every(interval) = job.interval else { continue };
            let shards = match job.scope {
                Scope::Shard => store.shards(),
                Scope::Server => std::slice::from_ref(store.first_shard()),
            };
            for shard in shards {
                start_loop(Jobs::Every(job, metrics.clone(), interval), shard, Arc::default());
            }
        }
        upkeep
    }

    fn due_jobs(&self) -> Vec<DueJob> {
        let due_job = |(job, metrics): (&'static Job, &Arc<JobMetrics>)| match job.interval {
            Interval::WhenDue(due_at) => Some(DueJob { job, metrics: metrics.clone(), due_at }),
            Interval::Every(_) => None,
        };
        JOBS.iter().zip(&self.metrics.jobs).filter_map(due_job).collect()
    }

    /// Returns the metrics of all jobs.
    pub fn metrics(&self) -> &Metrics {
        &self.metrics
    }

    /// Ends the pause of the shards that the wake-up concerns.
    pub fn on_wakeup(&self, wakeup: &Wakeup) {
        match wakeup {
            Wakeup::Due { shard } => self.wakeups.get(*shard).into_iter().for_each(|wakeup| wakeup.notify_one()),
            Wakeup::Gap => self.wakeups.iter().for_each(|wakeup| wakeup.notify_one()),
            Wakeup::Ready { .. } | Wakeup::Ended(_) => {}
        }
    }

    async fn run_loop(self: Arc<Self>, jobs: Jobs, mut context: Context, wakeup: Arc<Notify>, stop: CancellationToken) {
        loop {
            let pause = match &jobs {
                Jobs::WhenDue(jobs) => self.run_due(jobs, &mut context).await,
                Jobs::Every(job, metrics, interval) => {
                    run(job, metrics, &mut context).await;
                    interval.mul_f64(rand::rng().random_range(0.8..1.0))
                }
            };
            tokio::select! {
                () = tokio::time::sleep(pause) => {}
                () = wakeup.notified() => {}
                () = stop.cancelled() => return,
            }
        }
    }

    /// Runs the jobs of a shard that are due. Returns the pause until its due times are read again.
    async fn run_due(&self, jobs: &[DueJob], context: &mut Context) -> Duration {
        let max_pause = self.poll_interval.mul_f64(rand::rng().random_range(0.67..1.33));
        let Some(before) = read_next_due(jobs, &context.shard).await else { return max_pause };
        let is_due = |job: &&DueJob| (job.due_at)(&before).is_some_and(|due_at| due_at <= before.now);
        let due: Vec<&DueJob> = jobs.iter().filter(is_due).collect();
        let mut is_done = true;
        for DueJob { job, metrics, due_at } in &due {
            metrics.record_lag(&before, *due_at);
            context.next_due = Some(before.clone());
            is_done &= run(job, metrics, context).await;
        }
        if !is_done {
            return max_pause;
        }
        if due.is_empty() {
            return pause_until_due(&before, &before).min(max_pause);
        }
        match read_next_due(jobs, &context.shard).await {
            Some(after) => pause_until_due(&before, &after).min(max_pause),
            None => max_pause,
        }
    }
}

/// Runs a job, and records its duration and its failure. Returns whether it succeeded.
async fn run(job: &Job, metrics: &JobMetrics, context: &mut Context) -> bool {
    let started = Instant::now();
    let outcome = (job.run)(context).await;
    metrics.record_run(started.elapsed());
    let Err(error) = outcome else { return true };
    let shard = (job.scope == Scope::Shard).then_some(context.shard.index);
    metrics.record_failure(&error, shard);
    false
}

/// Reads the due times of a shard. If that fails, every job that depends on them has failed.
async fn read_next_due(jobs: &[DueJob], shard: &Shard) -> Option<NextDue> {
    match next_due(shard).await {
        Ok(next_due) => Some(next_due),
        Err(error) => {
            jobs.iter().for_each(|job| job.metrics.record_failure(&error, Some(shard.index)));
            None
        }
    }
}

/// Returns the time from the reading `after` until a job is due. Nothing due: [`Duration::MAX`].
fn pause_until_due(before: &NextDue, after: &NextDue) -> Duration {
    let times = |next: &NextDue| [next.due_at, next.expires_at, next.retention_ends_at];
    let Some(next) = times(after).into_iter().flatten().min() else { return Duration::MAX };
    match u64::try_from(next.0.saturating_sub(after.now.0)) {
        Ok(ms) if ms > 0 => Duration::from_millis(ms),
        // More has become due. If it is the work of the last run, that run could not do it.
        _ if times(before) == times(after) => RETRY_DELAY,
        _ => Duration::ZERO,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn next_due(now: i64, due_at: Option<i64>) -> NextDue {
        NextDue {
            now: TimestampMs(now),
            due_at: due_at.map(TimestampMs),
            expires_at: None,
            retention_ends_at: None,
            due_queues: Vec::new(),
        }
    }

    #[test]
    fn job_names_are_unique_and_due_jobs_cover_one_shard() {
        let names: std::collections::HashSet<_> = JOBS.iter().map(|job| job.name).collect();
        assert_eq!(names.len(), JOBS.len());
        for job in &JOBS {
            assert!(matches!(job.interval, Interval::Every(_)) || job.scope == Scope::Shard, "{}", job.name);
        }
    }

    #[test]
    fn pause_ends_at_the_next_due_time_and_repeated_work_is_delayed() {
        let before = next_due(1000, Some(900));
        assert_eq!(pause_until_due(&before, &next_due(1000, Some(1250))), Duration::from_millis(250));
        assert_eq!(pause_until_due(&before, &next_due(1000, Some(950))), Duration::ZERO);
        assert_eq!(pause_until_due(&before, &next_due(1010, Some(900))), RETRY_DELAY);
        assert_eq!(pause_until_due(&before, &next_due(1000, None)), Duration::MAX);
    }
}
