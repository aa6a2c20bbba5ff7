//! Background maintenance: transitions and repairs that no request causes.
//!
//! `DUE_JOBS` lists the jobs that run when work is due, and `JOBS` the periodic ones. Due jobs and queues take turns, one
//! bounded step each, so that a mass of work in one queue delays no other. Runs are timed, and failures counted, by job.
//! Every server runs every job. A job makes bounded calls and is idempotent, so that servers may run it at the same time.

mod bound_history;
mod check_permissions;
mod check_queues;
mod dataset_heartbeat;
mod due_loop;
mod expire_leases;
mod expire_tasks;
mod job;
mod metrics;
mod promote;
mod prune_callers;
mod purge_retention;
mod relieve_memory;
mod sample_leases;
mod stale_entries;
mod step_size;
mod sync_settings;
mod watch_log;

use std::sync::Arc;
use std::time::{Duration, Instant};

use rand::RngExt as _;
use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::background;
use crate::spans::Spans;
use crate::store::dataset::identity::Dataset;
use crate::store::dataset::loss_detector::LossDetector;
use crate::store::notify::wakeups::Wakeup;
use crate::store::permissions::PermissionMonitor;
use crate::store::{Caller, Shard, Store};

use due_loop::DueLoop;
use job::{Context, DueJob, Index, Job, Scope};
use metrics::JobMetrics;
pub use metrics::Metrics;

/// The jobs that take turns while work is due, in this order within a round.
static DUE_JOBS: [DueJob; 4] = [
    DueJob {
        name: "expire_tasks",
        due_at: |next| next.expires_at,
        index: Index::OfShard("expirations"),
        step: |context, turn| Box::pin(expire_tasks::step(context, turn)),
    },
    DueJob {
        name: "purge_retention",
        due_at: |next| next.retention_ends_at,
        index: Index::OfShard("retention"),
        step: |context, turn| Box::pin(purge_retention::step(context, turn)),
    },
    DueJob {
        name: "expire_leases",
        due_at: |next| next.due_at,
        index: Index::OfQueue("leased"),
        step: |context, turn| Box::pin(expire_leases::step(context, turn)),
    },
    // After expire_leases: promote also sets the next due time of a queue.
    DueJob {
        name: "promote",
        due_at: |next| next.due_at,
        index: Index::OfQueue("scheduled"),
        step: |context, turn| Box::pin(promote::step(context, turn)),
    },
];

/// The periodic jobs.
static JOBS: [Job; 9] = [
    Job {
        name: "check_queues",
        interval: Duration::from_secs(2),
        scope: Scope::Shard,
        run: |context| Box::pin(check_queues::run(context)),
    },
    Job {
        name: "dataset_heartbeat",
        interval: Duration::from_secs(1),
        scope: Scope::Shard,
        run: |context| Box::pin(dataset_heartbeat::run(context)),
    },
    Job {
        name: "relieve_memory",
        interval: Duration::from_secs(1),
        scope: Scope::Shard,
        run: |context| Box::pin(relieve_memory::run(context)),
    },
    Job {
        name: "bound_history",
        interval: Duration::from_secs(1),
        scope: Scope::Server,
        run: |context| Box::pin(bound_history::run(context)),
    },
    Job {
        name: "check_permissions",
        interval: Duration::from_secs(5),
        scope: Scope::Server,
        run: |context| Box::pin(check_permissions::run(context)),
    },
    Job {
        name: "sync_settings",
        interval: Duration::from_secs(5),
        scope: Scope::Server,
        run: |context| Box::pin(sync_settings::run(context)),
    },
    Job {
        name: "sample_leases",
        interval: Duration::from_secs(5),
        scope: Scope::Server,
        run: |context| Box::pin(sample_leases::run(context)),
    },
    Job {
        name: "prune_callers",
        interval: Duration::from_secs(600),
        scope: Scope::Server,
        run: |context| Box::pin(prune_callers::run(context)),
    },
    Job {
        name: "watch_log",
        interval: Duration::from_secs(5),
        scope: Scope::Server,
        run: |context| Box::pin(watch_log::run(context)),
    },
];

/// The upkeep of a server.
#[derive(Debug)]
pub struct Upkeep {
    /// One per shard: ends the pause of the loop of due jobs.
    wakeups: Vec<Arc<Notify>>,
    metrics: Metrics,
}

impl Upkeep {
    /// Starts the loops of all jobs. They end after `stop`. A shard's due times are read at least every `poll_interval`, varied
    /// by a third. Spans of executions that end with an expired lease go to `spans`.
    pub fn start(
        store: &Store,
        dataset: &Dataset,
        poll_interval: Duration,
        max_ended_per_queue: u64,
        spans: &Spans,
        tasks: &TaskTracker,
        stop: &CancellationToken,
    ) -> Arc<Self> {
        let wakeups: Vec<Arc<Notify>> = store.shards().iter().map(|_| Arc::default()).collect();
        let metrics = Metrics::new(&DUE_JOBS, &JOBS);
        let context = |shard: &Shard| Context {
            store: store.clone(),
            shard: shard.clone(),
            caller: Caller::new(),
            spans: spans.clone(),
            loss_detector: LossDetector::new(dataset),
            max_ended_per_queue,
            last_checked: None,
            permissions: PermissionMonitor::default(),
        };
        for (shard, wakeup) in store.shards().iter().zip(&wakeups) {
            let due_loop = DueLoop::new(&DUE_JOBS, &metrics.due_jobs, context(shard), poll_interval);
            background::spawn(tasks, "due_jobs", due_loop.run(wakeup.clone(), stop.clone()));
        }
        for (job, metrics) in JOBS.iter().zip(&metrics.jobs) {
            let shards = match job.scope {
                Scope::Shard => store.shards(),
                Scope::Server => std::slice::from_ref(store.first_shard()),
            };
            for shard in shards {
                background::spawn(
                    tasks,
                    job.name,
                    run_periodically(job, metrics.clone(), context(shard), stop.clone()),
                );
            }
        }
        Arc::new(Upkeep { wakeups, metrics })
    }

    /// Returns the metrics of all jobs.
    pub fn metrics(&self) -> &Metrics {
        &self.metrics
    }

    /// Ends the pause of the shards that the wake-up concerns.
    pub fn on_wakeup(&self, wakeup: &Wakeup) {
        match wakeup {
            Wakeup::Due { shard } => self.wakeups.get(*shard).into_iter().for_each(|wakeup| wakeup.notify_one()),
            Wakeup::Gap { .. } => self.wakeups.iter().for_each(|wakeup| wakeup.notify_one()),
            Wakeup::Ready { .. } | Wakeup::Ended(_) | Wakeup::Waiting { .. } | Wakeup::Interrupted => {}
        }
    }
}

/// Runs a periodic job until `stop`.
async fn run_periodically(job: &'static Job, metrics: Arc<JobMetrics>, mut context: Context, stop: CancellationToken) {
    loop {
        let started = Instant::now();
        let outcome = (job.run)(&mut context).await;
        metrics.record_run(started.elapsed());
        if let Err(error) = outcome {
            metrics.record_failure(&error, (job.scope == Scope::Shard).then_some(context.shard.index));
        }
        tokio::select! {
            () = tokio::time::sleep(job.interval.mul_f64(rand::rng().random_range(0.8..1.0))) => {}
            () = stop.cancelled() => return,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn job_names_are_unique() {
        let all = DUE_JOBS.iter().map(|job| job.name).chain(JOBS.iter().map(|job| job.name));
        let names: std::collections::HashSet<_> = all.collect();
        assert_eq!(names.len(), DUE_JOBS.len() + JOBS.len());
    }
}
