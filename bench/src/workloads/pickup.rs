//! (e) Pick-up latency: 64 waiting workers, 200 scheduled submits per second; from the due time of a submit until a
//! worker has the task.

use std::cell::RefCell;
use std::collections::HashMap;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use futures_util::future::try_join_all;

use super::{Entry, Goal, QUEUE, Round, Script, Workload};
use crate::adapters::{Adapter, Client, Job as _, Task};
use crate::ledger::Ledger;
use crate::load::{Measured, Plan, Run, Verb, WAIT, open};
use crate::stats::Wanted;
use crate::systems::Kind;

/// Submits per second.
pub const RATE: f64 = 200.0;
/// Submitting connections: more than can be busy at once.
pub const SENDERS: usize = 16;
const WORKERS: usize = 64;
const CONNECTIONS: &str = "connections to Redis";

pub(super) fn workload() -> Workload {
    let mut entries: Vec<Entry> = Kind::full_life().map(|kind| Entry::new(kind, Script::PickUp)).collect();
    entries.push(Entry::new(Kind::RoundTrip, Script::PickUp));
    let goals = vec![
        Goal::new("p50, to the bare round trips'", Wanted::AtMost(1.5), |round| to_bare(round, 0.5)),
        Goal::new("p99, to the bare round trips'", Wanted::AtMost(3.0), |round| to_bare(round, 0.99)),
        Goal::new("connections to Redis while 64 wait", Wanted::AtMost(16.0), |round| {
            round.get("slotwheel")?.figures.get(CONNECTIONS).copied()
        }),
    ];
    Workload { goals, ..Workload::new("e", "pick-up: 64 waiting workers, 200 submits a second", entries) }
}

fn to_bare(round: &Round, quantile: f64) -> Option<f64> {
    let at = |label| Some(round.get(label)?.latencies.get(&Verb::PickUp)?.value_at_quantile(quantile) as f64);
    Some(at("slotwheel")? / at("bare")?)
}

pub(super) async fn round<S: Adapter>(system: &S, ledger: &Ledger, plan: &Plan) -> Result<Measured> {
    let run = Run::new(ledger, plan);
    let before = ledger.unfinished();
    let due: RefCell<HashMap<u64, Instant>> = RefCell::default();
    let workers = try_join_all((0..WORKERS).map(|_| system.connect())).await?;
    let senders = try_join_all((0..SENDERS).map(|_| system.connect())).await?;
    let workers = try_join_all(workers.into_iter().map(async |mut worker| -> Result<()> {
        loop {
            for job in worker.take(QUEUE, 1, WAIT).await? {
                run.arrived(due.borrow_mut().remove(&job.number()).context("an unknown task")?);
                run.finish(&mut worker, QUEUE, &job).await?;
            }
        }
    }));
    let conduct = async {
        let processes = system.processes();
        let spent = open(&run, plan, RATE, &processes, senders, async |sender, at| {
            let (number, payload) = run.next();
            due.borrow_mut().insert(number, at);
            run.timed(Verb::Submit, sender.submit(QUEUE, Task { payload: &payload, key: None })).await
        });
        let spent = spent.await?;
        let deadline = Instant::now() + 6 * WAIT;
        while ledger.unfinished() > before {
            ensure!(Instant::now() < deadline, "a submitted task was not delivered");
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        // Without the connection of this command.
        let connections = system.redis().map(|redis| redis.info("connected_clients")).transpose()?;
        anyhow::Ok((spent, connections.map(|connections| connections as f64 - 1.0)))
    };
    let (spent, connections) = tokio::select! {
        ended = workers => { ended?; unreachable!("workers wait for ever") }
        conducted = conduct => conducted?,
    };
    let mut measured = run.measured(spent);
    measured.figures.extend(connections.map(|connections| (CONNECTIONS, connections)));
    Ok(measured)
}
