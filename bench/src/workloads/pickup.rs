//! (e) Pick-up latency: 64 waiting workers, 200 scheduled submits per second; from the due time of a submit until a
//! worker has the task. (l), in `waiting`, is the same work with other numbers of workers and senders.

use std::cell::RefCell;
use std::collections::HashMap;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use futures_util::future::try_join_all;

use super::{Entry, Goal, QUEUE, Round, Script, Workload};
use crate::adapters::{Adapter, Client, Job as _, Task};
use crate::ledger::Ledger;
use crate::load::{Measured, Plan, Run, Verb, WAIT};
use crate::open_loop::open;
use crate::spent::Observed;
use crate::stats::Wanted;
use crate::systems::Kind;

/// Submits per second.
pub const RATE: f64 = 200.0;
/// 64 workers, and more senders than can be busy at once.
const PICK_UP: Script = Script::PickUp { workers: 64, senders: 16 };
const CONNECTIONS: &str = "connections to Redis";

pub(super) fn workload() -> Workload {
    let mut entries: Vec<Entry> = Kind::full_life().map(|kind| Entry::new(kind, PICK_UP)).collect();
    entries.push(Entry::new(Kind::RoundTrip, PICK_UP));
    let goals = vec![
        Goal::new("p50, to the bare round trips'", Wanted::AtMost(1.8), to_bare("slotwheel", "bare", 0.5)),
        Goal::new("p99, to the bare round trips'", Wanted::AtMost(3.0), to_bare("slotwheel", "bare", 0.99)),
        Goal::new("connections to Redis while 64 wait", Wanted::AtMost(16.0), |round| {
            round.get("slotwheel")?.figures.get(CONNECTIONS).copied()
        }),
    ];
    Workload { goals, ..Workload::new("e", "pick-up: 64 waiting workers, 200 submits a second", entries) }
}

/// The ratio of a quantile of the pick-up of one entry to that of the bare round trips.
pub(super) fn to_bare(one: &'static str, bare: &'static str, quantile: f64) -> impl Fn(&Round) -> Option<f64> {
    move |round| {
        let at = |label| Some(round.get(label)?.latencies.get(&Verb::PickUp)?.value_at_quantile(quantile) as f64);
        Some(at(one)? / at(bare)?)
    }
}

pub(super) async fn round<S: Adapter>(
    system: &S,
    ledger: &Ledger,
    plan: &Plan,
    (workers, senders): (usize, usize),
) -> Result<Measured> {
    let run = Run::new(ledger, plan);
    let before = ledger.unfinished();
    let due: RefCell<HashMap<u64, Instant>> = RefCell::default();
    let workers = try_join_all((0..workers).map(|_| system.connect())).await?;
    let senders = try_join_all((0..senders).map(|_| system.connect())).await?;
    let workers = try_join_all(workers.into_iter().map(async |mut worker| -> Result<()> {
        loop {
            for job in worker.take(QUEUE, 1, WAIT).await? {
                run.arrived(Verb::PickUp, due.borrow_mut().remove(&job.number()).context("an unknown task")?);
                run.finish(&mut worker, QUEUE, &job).await?;
            }
        }
    }));
    let conduct = async {
        let observed = Observed::of(system)?;
        let window = open(&run, plan, RATE, &observed, senders, async |sender, at| {
            let (number, payload) = run.next();
            due.borrow_mut().insert(number, at);
            run.timed(Verb::Submit, sender.submit(QUEUE, Task { payload: &payload, key: None })).await
        });
        let window = window.await?;
        drop(observed);
        let deadline = Instant::now() + 6 * WAIT;
        while ledger.unfinished() > before {
            ensure!(Instant::now() < deadline, "a submitted task was not delivered");
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        // Without the connection of this command.
        let connections = system.redis().map(|redis| redis.info("connected_clients")).transpose()?;
        anyhow::Ok((window, connections.map(|connections| connections as f64 - 1.0)))
    };
    let (window, connections) = tokio::select! {
        ended = workers => { ended?; unreachable!("workers wait for ever") }
        conducted = conduct => conducted?,
    };
    let mut measured = run.measured(window);
    measured.figures.extend(connections.map(|connections| (CONNECTIONS, connections)));
    Ok(measured)
}
