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

mod drop;
mod expire;
mod meters;
mod promote;
mod pulse;
mod reap;
mod sample;
mod settle;
mod tidy;

use std::sync::Arc;
use std::time::Duration;

use rand::RngExt as _;
use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::spans::Spans;
use crate::store::found::Founded;
use crate::store::signal::Signal;
use crate::store::views::horizon::{Horizon, horizon};
use crate::store::{Caller, Result, Shard, Store};

pub use meters::Meters;

/// A pause after a job that found work and could not do it.
const STUCK: Duration = Duration::from_millis(200);

/// The engine of upkeep.
#[derive(Debug)]
pub struct Upkeep {
    earlier: Vec<Notify>,
    meters: Meters,
}

impl Upkeep {
    /// Starts upkeep of every shard. It looks at the latest every `sweep`, give or take a third. The ends of leases that
    /// ran out go to `spans`. Ends after `stop`.
    pub fn start(
        store: &Store,
        founded: &Founded,
        sweep: Duration,
        spans: &Spans,
        tasks: &TaskTracker,
        stop: &CancellationToken,
    ) -> Arc<Self> {
        let earlier = store.shards().iter().map(|_| Notify::new()).collect();
        let upkeep = Arc::new(Upkeep { earlier, meters: Meters::default() });
        for shard in store.shards() {
            tasks.spawn(upkeep.clone().keep(shard.clone(), sweep, spans.clone(), stop.clone()));
            tasks.spawn(pulse::run(shard.clone(), founded.clone(), stop.clone()));
        }
        tasks.spawn(sample::run(store.clone(), stop.clone()));
        tasks.spawn(settle::run(store.clone(), stop.clone()));
        tasks.spawn(tidy::run(store.clone(), stop.clone()));
        upkeep
    }

    /// What was late, and what failed.
    pub fn meters(&self) -> &Meters {
        &self.meters
    }

    /// Takes note of what a script said.
    pub fn hear(&self, signal: &Signal) {
        match signal {
            Signal::Due { shard } => self.earlier.get(*shard).into_iter().for_each(Notify::notify_one),
            Signal::Missed => self.earlier.iter().for_each(Notify::notify_one),
            Signal::Ready { .. } | Signal::Ended(_) => {}
        }
    }

    async fn keep(self: Arc<Self>, shard: Shard, sweep: Duration, spans: Spans, stop: CancellationToken) {
        let mut caller = Caller::new();
        let Some(earlier) = self.earlier.get(shard.index) else { return };
        loop {
            let most = sweep.mul_f64(rand::rng().random_range(0.67..1.33));
            let pause = match turn(&shard, &mut caller, &spans, &self.meters).await {
                Ok(next) => next.map_or(most, |next| next.min(most)),
                Err(error) => {
                    self.meters.failures.one();
                    tracing::debug!(%error, shard = shard.index, "upkeep failed");
                    most
                }
            };
            tokio::select! {
                () = tokio::time::sleep(pause) => {}
                () = earlier.notified() => {}
                () = stop.cancelled() => return,
            }
        }
    }
}

/// Does what is due; how long until the next is, by Redis' clock. `None`: nothing is in sight.
async fn turn(shard: &Shard, caller: &mut Caller, spans: &Spans, meters: &Meters) -> Result<Option<Duration>> {
    let seen = horizon(shard).await?;
    meters.note(&seen);
    let due = |time: Option<_>| time.is_some_and(|time| time <= seen.now);
    if due(seen.deadline) {
        expire::run(shard, caller).await?;
    }
    if due(seen.due) {
        for queue in &seen.queues {
            reap::run(shard, caller, queue, seen.now, spans).await?;
            promote::run(shard, caller, queue).await?;
        }
    }
    if due(seen.retain) {
        drop::run(shard, caller, seen.now).await?;
    }
    let (now, after) = if due(seen.deadline) || due(seen.due) || due(seen.retain) {
        let after = horizon(shard).await?;
        (after.now, after)
    } else {
        (seen.now, seen.clone())
    };
    let next = [after.due, after.deadline, after.retain].into_iter().flatten().min();
    Ok(next.map(|next| match u64::try_from(next.0.saturating_sub(now.0)) {
        Ok(ms) if ms > 0 => Duration::from_millis(ms),
        // More has come due in the meantime. If it is what was tried just now, not at full speed.
        _ if same_heads(&seen, &after) => STUCK,
        _ => Duration::ZERO,
    }))
}

fn same_heads(a: &Horizon, b: &Horizon) -> bool {
    (a.due, a.deadline, a.retain) == (b.due, b.deadline, b.retain)
}
