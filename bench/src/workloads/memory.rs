//! (h) Redis memory per task, beyond its payload: of waiting tasks at 100 bytes (plain, and each with a random key), 1 KB
//! and 10 KB, and of completed tasks at 100 bytes.

use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};

use super::fill::Fill;
use super::{BATCH, Entry, Goal, QUEUE, Round, Script, Workload};
use crate::adapters::{Adapter, Client as _, Job as _};
use crate::ledger::Ledger;
use crate::load::{Measured, WAIT};
use crate::stats::Wanted;
use crate::systems::Kind;

const BEYOND: &str = "bytes of Redis beyond the payload, a task";
const PLAIN: &str = "slotwheel, 1,000,000 of 100 B";
const KEYED: &str = "slotwheel, 1,000,000 of 100 B, keyed";
const COMPLETED: &str = "slotwheel, 65,000 of 100 B, completed";
const OTHER_COMPLETED: &str = "other, 65,000 of 100 B, completed";

pub(super) fn workload() -> Workload {
    let fill = |tasks, payload| Fill { tasks, queues: 1, keyed: false, payload };
    let mut entries = vec![
        entry(Kind::Slotwheel, PLAIN.to_owned(), fill(1_000_000, 100)),
        entry(Kind::Slotwheel, KEYED.to_owned(), Fill { keyed: true, ..fill(1_000_000, 100) }),
    ];
    // The systems with a readable Redis.
    for kind in [Kind::Slotwheel, Kind::Other, Kind::Ocypod, Kind::Lmstfy, Kind::Faktory] {
        for (tasks, payload, size) in [(50_000, 100, "100 B"), (50_000, 1024, "1 KB"), (20_000, 10_240, "10 KB")] {
            entries.push(entry(kind, format!("{}, {tasks} of {size}", kind.name()), fill(tasks, payload)));
        }
    }
    // Fewer than the ended tasks that a queue keeps by default.
    for (kind, label) in [(Kind::Slotwheel, COMPLETED), (Kind::Other, OTHER_COMPLETED)] {
        let script = Script::CompletedMemory(fill(65_000, 100));
        entries.push(Entry { script, ..entry(kind, label.to_owned(), fill(65_000, 100)) });
    }
    let beyond = |label: &'static str| move |round: &Round| round.get(label)?.figures.get(BEYOND).copied();
    let goals = vec![
        Goal::new("bytes beyond 100 B of payload, plain", Wanted::AtMost(200.0), beyond(PLAIN)),
        Goal::new("bytes beyond 100 B of payload, keyed", Wanted::AtMost(400.0), beyond(KEYED)),
        Goal::new("bytes beyond 100 B of payload, completed", Wanted::AtMost(310.0), beyond(COMPLETED)),
    ];
    Workload { goals, once: true, ..Workload::new("h", "memory of Redis for each task", entries) }
}

fn entry(kind: Kind, label: String, fill: Fill) -> Entry {
    Entry { instance: label.clone(), label, ..Entry::new(kind, Script::Memory(fill)) }
}

pub(super) async fn round<S: Adapter>(system: &S, ledger: &Ledger, fill: &Fill) -> Result<Measured> {
    measured(system, fill, async || fill.give(system, ledger).await).await
}

pub(super) async fn completed<S: Adapter>(system: &S, ledger: &Ledger, fill: &Fill) -> Result<Measured> {
    measured(system, fill, async || {
        fill.give(system, ledger).await?;
        let mut client = system.connect().await?;
        while ledger.unfinished() > 0 {
            let jobs = client.take(QUEUE, BATCH, WAIT).await?;
            ensure!(!jobs.is_empty(), "a submitted task was not delivered");
            client.finish_many(QUEUE, &jobs).await?;
            jobs.iter().try_for_each(|job| ledger.finish(job.number()))?;
        }
        Ok(())
    })
    .await
}

/// Measures the memory of the tasks that `give` leaves in Redis.
async fn measured<S: Adapter>(system: &S, fill: &Fill, give: impl AsyncFn() -> Result<()>) -> Result<Measured> {
    let redis = system.redis().context("its Redis is not readable")?;
    let before = redis.info("used_memory")?;
    let begun = Instant::now();
    give().await?;
    let seconds = begun.elapsed().as_secs_f64();
    // Redis releases buffers of the append-only file and of connections meanwhile.
    tokio::time::sleep(Duration::from_secs(3)).await;
    let each = (redis.info("used_memory")? - before) as f64 / fill.tasks as f64;
    let figures = [(BEYOND, each - fill.payload as f64), ("seconds to fill", seconds)].into();
    Ok(Measured { tasks: fill.tasks as u64, figures, ..Measured::default() })
}
