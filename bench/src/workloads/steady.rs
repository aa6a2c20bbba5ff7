//! (k) Steady state: 1000 lives per second for ten minutes of each system, with the default retention. Ended tasks are
//! kept and deleted as by default, and the cost of the deletion is included.
//!
//! The ten minutes are divided among the rounds, without a warm-up. A round ends when the deletion that follows from
//! its lives has come to rest, so that no cost is left to the pause before the system's next round.

use std::time::{Duration, Instant};

use anyhow::Result;
use futures_util::future::try_join_all;

use super::{Entry, QUEUE, Script, Workload};
use crate::adapters::Adapter;
use crate::ledger::Ledger;
use crate::load::{Measured, Plan, Run, Verb};
use crate::open_loop::open;
use crate::spent::Observed;
use crate::systems::Kind;

/// Lives per second.
const RATE: f64 = 1000.0;
/// The deletion has come to rest if it has deleted nothing for this time.
const REST: Duration = Duration::from_secs(3);
/// A deletion that goes on is not waited for any longer.
const LONGEST_REST: Duration = Duration::from_secs(30);

const MEMORY: &str = "MB of Redis";
const DELETED: &str = "tasks deleted";

pub(super) fn workload() -> Workload {
    let entries = [Kind::Slotwheel, Kind::Other].map(|kind| Entry::new(kind, Script::Steady));
    Workload {
        course: true,
        ..Workload::new("k", "steady state: 1000 lives a second, default retention", entries.into())
    }
}

pub(super) async fn round<S: Adapter>(system: &S, ledger: &Ledger, plan: &Plan) -> Result<Measured> {
    let plan = Plan { warm_up: Duration::ZERO, window: plan.steady_window, ..*plan };
    let run = Run::new(ledger, &plan);
    let clients = try_join_all((0..plan.connections).map(|_| system.connect())).await?;
    let observed = Observed::of(system)?;
    let before = observed.now()?;
    let (seconds, _) = open(&run, &plan, RATE, &observed, clients, async |client, due| {
        run.submit(client, QUEUE, None).await?;
        for job in run.take(client, QUEUE, 1).await? {
            run.finish(client, QUEUE, &job).await?;
            run.arrived(Verb::Life, due);
        }
        Ok(())
    })
    .await?;
    let deleted = rest(system).await?;
    let mut measured = run.measured((seconds, observed.now()?.since(before)));
    measured.figures.extend(deleted.map(|deleted| (DELETED, deleted as f64)));
    let memory = system.redis().map(|redis| redis.info("used_memory")).transpose()?;
    measured.figures.extend(memory.map(|bytes| (MEMORY, bytes as f64 / 1e6)));
    Ok(measured)
}

/// Waits until no task is deleted any more; returns the number of deleted tasks since the system was started.
async fn rest<S: Adapter>(system: &S) -> Result<Option<u64>> {
    let deadline = Instant::now() + LONGEST_REST;
    let (mut deleted, mut since) = (system.deleted(QUEUE).await?, Instant::now());
    while since.elapsed() < REST && Instant::now() < deadline {
        tokio::time::sleep(Duration::from_millis(500)).await;
        let now = system.deleted(QUEUE).await?;
        if now != deleted {
            (deleted, since) = (now, Instant::now());
        }
    }
    Ok(deleted)
}
