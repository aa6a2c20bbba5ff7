//! What must happen without anybody asking. Each job is bounded and safe on every replica at the same time: two that
//! do it at once do it once.
//!
//! | job | when | does |
//! |---|---|---|
//! | `reap`, `promote` | the first time in `due` has come | ends leases that ran out; makes scheduled tasks ready |
//! | `expire` | the first deadline has passed | ends tasks that waited too long |
//! | `drop` | the first retention is over | forgets ended tasks |
//! | `settle` | every 5 s | repairs copies of settings that are behind |
//! | `pulse` | every second | proves that writes work, and notices a loss of data |
//! | `sample` | every 5 s | looks who holds how many leases |
//! | `tidy` | every 10 min | forgets pumps that are gone |

mod dataset_heartbeat;
mod expire_leases;
mod expire_tasks;
mod metrics;
mod promote;
mod prune_callers;
mod purge_retention;
mod sample_leases;
mod sync_settings;

use std::sync::Arc;
use std::time::Duration;

use rand::RngExt as _;
use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::spans::Spans;
use crate::store::dataset::identity::Dataset;
use crate::store::notify::wakeups::Wakeup;
use crate::store::views::next_due::{NextDue, next_due};
use crate::store::{Caller, Result, Shard, Store};

pub use metrics::Metrics;

/// A pause after a job that found work and could not do it.
const RETRY_DELAY: Duration = Duration::from_millis(200);

/// The engine of upkeep.
#[derive(Debug)]
pub struct Upkeep {
    wakeups: Vec<Notify>,
    metrics: Metrics,
}

impl Upkeep {
    /// Starts upkeep of every shard. It looks at the latest every `sweep`, give or take a third. The ends of leases that
    /// ran out go to `spans`. Ends after `stop`.
    pub fn start(
        store: &Store,
        dataset: &Dataset,
        poll_interval: Duration,
        spans: &Spans,
        tasks: &TaskTracker,
        stop: &CancellationToken,
    ) -> Arc<Self> {
        let wakeups = store.shards().iter().map(|_| Notify::new()).collect();
        let upkeep = Arc::new(Upkeep { wakeups, metrics: Metrics::default() });
        for shard in store.shards() {
            tasks.spawn(upkeep.clone().run_shard(shard.clone(), poll_interval, spans.clone(), stop.clone()));
            tasks.spawn(dataset_heartbeat::run(shard.clone(), dataset.clone(), stop.clone()));
        }
        tasks.spawn(sample_leases::run(store.clone(), stop.clone()));
        tasks.spawn(sync_settings::run(store.clone(), stop.clone()));
        tasks.spawn(prune_callers::run(store.clone(), stop.clone()));
        upkeep
    }

    /// What was late, and what failed.
    pub fn metrics(&self) -> &Metrics {
        &self.metrics
    }

    /// Takes note of what a script said.
    pub fn on_wakeup(&self, wakeup: &Wakeup) {
        match wakeup {
            Wakeup::Due { shard } => self.wakeups.get(*shard).into_iter().for_each(Notify::notify_one),
            Wakeup::Gap => self.wakeups.iter().for_each(Notify::notify_one),
            Wakeup::Ready { .. } | Wakeup::Ended(_) => {}
        }
    }

    async fn run_shard(self: Arc<Self>, shard: Shard, poll_interval: Duration, spans: Spans, stop: CancellationToken) {
        let mut caller = Caller::new();
        let Some(wakeup) = self.wakeups.get(shard.index) else { return };
        loop {
            let max_pause = poll_interval.mul_f64(rand::rng().random_range(0.67..1.33));
            let pause = match run_due(&shard, &mut caller, &spans, &self.metrics).await {
                Ok(next) => next.map_or(max_pause, |next| next.min(max_pause)),
                Err(error) => {
                    self.metrics.failures.inc();
                    tracing::debug!(%error, shard = shard.index, "upkeep failed");
                    max_pause
                }
            };
            tokio::select! {
                () = tokio::time::sleep(pause) => {}
                () = wakeup.notified() => {}
                () = stop.cancelled() => return,
            }
        }
    }
}

/// Does what is due; how long until the next is, by Redis' clock. `None`: nothing is in sight.
async fn run_due(shard: &Shard, caller: &mut Caller, spans: &Spans, metrics: &Metrics) -> Result<Option<Duration>> {
    let schedule = next_due(shard).await?;
    metrics.record_lags(&schedule);
    let is_due = |time: Option<_>| time.is_some_and(|time| time <= schedule.now);
    if is_due(schedule.expires_at) {
        expire_tasks::run(shard, caller).await?;
    }
    if is_due(schedule.due_at) {
        for queue in &schedule.due_queues {
            expire_leases::run(shard, caller, queue, schedule.now, spans).await?;
            promote::run(shard, caller, queue).await?;
        }
    }
    if is_due(schedule.retention_ends_at) {
        purge_retention::run(shard, caller, schedule.now).await?;
    }
    let (now, after) = if is_due(schedule.expires_at) || is_due(schedule.due_at) || is_due(schedule.retention_ends_at) {
        let refreshed = next_due(shard).await?;
        (refreshed.now, refreshed)
    } else {
        (schedule.now, schedule.clone())
    };
    let next = [after.due_at, after.expires_at, after.retention_ends_at].into_iter().flatten().min();
    Ok(next.map(|next| match u64::try_from(next.0.saturating_sub(now.0)) {
        Ok(ms) if ms > 0 => Duration::from_millis(ms),
        // More has come due in the meantime. If it is what was tried just now, not at full speed.
        _ if is_unchanged(&schedule, &after) => RETRY_DELAY,
        _ => Duration::ZERO,
    }))
}

fn is_unchanged(before: &NextDue, after: &NextDue) -> bool {
    (before.due_at, before.expires_at, before.retention_ends_at)
        == (after.due_at, after.expires_at, after.retention_ends_at)
}
