//! (m) Calls of a life, counted exactly: scripts, and the commands that they call. One client, one task at a time: in one
//! shard, without and with a waiting worker, and in 16 and 64 shards.
//!
//! The counts of Redis are read before and after each life. The median is the number of a life without other work
//! meanwhile. In several shards lives differ, so the mean is of interest: less the calls of an idle server in that time.

use std::time::{Duration, Instant};

use anyhow::{Context as _, Result};

use super::{Entry, Goal, QUEUE, Round, Script, Workload};
use crate::adapters::{Adapter, Client, Job as _, Task};
use crate::command_stats::{CallReader, Calls};
use crate::ledger::{Ledger, payload};
use crate::load::{Measured, Plan, WAIT};
use crate::stats::{Estimate, Wanted};
use crate::systems::Kind;

const CASES: [(u32, bool, &str); 4] = [
    (1, false, "one shard"),
    (1, true, "one shard, a worker waits"),
    (16, false, "16 shards"),
    (64, false, "64 shards"),
];
const WARM_UP: usize = 50;
const LIVES: usize = 1000;
/// Fewer, because each waits until the worker rests.
const WAITING_LIVES: usize = 200;
const IDLE: Duration = Duration::from_secs(3);
/// A claim that waits has come to rest if no script was called for this time.
const REST: Duration = Duration::from_millis(10);

const SCRIPTS: &str = "scripts a life, median";
const COMMANDS: &str = "commands a life, median";
const MEAN_SCRIPTS: &str = "scripts a life, mean";
const MEAN_COMMANDS: &str = "commands a life, mean";

pub(super) fn workload() -> Workload {
    let mut entries = Vec::new();
    for (shards, waiting, case) in CASES {
        for kind in [Kind::Slotwheel, Kind::Other] {
            entries.push(Entry::of_case(kind, Script::Counts { waiting }, case).with_shards(shards));
        }
    }
    let of =
        |label: &'static str, name: &'static str| move |round: &Round| round.get(label)?.figures.get(name).copied();
    let waiting = "slotwheel, one shard, a worker waits";
    let goals = vec![
        Goal::new("commands a life", Wanted::AtMost(24.0), of("slotwheel, one shard", COMMANDS)),
        Goal::new("commands a life, a worker waits", Wanted::AtMost(12.0), of(waiting, COMMANDS)),
        Goal::new("scripts a life, a worker waits", Wanted::AtMost(2.0), of(waiting, SCRIPTS)),
        Goal::new("scripts a life, 16 shards", Wanted::AtMost(3.1), of("slotwheel, 16 shards", MEAN_SCRIPTS)),
        Goal::new("scripts a life, 64 shards", Wanted::AtMost(3.4), of("slotwheel, 64 shards", MEAN_SCRIPTS)),
    ];
    Workload { goals, once: true, ..Workload::new("m", "calls of a life, one task at a time", entries) }
}

pub(super) async fn round<S: Adapter>(system: &S, ledger: &Ledger, plan: &Plan, waiting: bool) -> Result<Measured> {
    let mut calls = CallReader::of(system.redis().context("its Redis is not readable")?)?;
    let (mut submitter, mut worker) = (system.connect().await?, system.connect().await?);
    let mut life = async |calls: &mut CallReader| -> Result<Calls> {
        let payload = payload(ledger.number(), plan.payload);
        let task = Task { payload: &payload, key: None };
        let before = calls.read()?;
        let submit = async {
            if waiting {
                rest(calls).await?;
            }
            submitter.submit(QUEUE, task).await
        };
        let jobs = if waiting {
            tokio::try_join!(worker.take(QUEUE, 1, WAIT), submit)?.0
        } else {
            submit.await?;
            worker.take(QUEUE, 1, WAIT).await?
        };
        let job = jobs.first().context("a submitted task was not delivered")?;
        worker.finish(QUEUE, job).await?;
        ledger.finish(job.number())?;
        Ok(calls.read()?.since(before))
    };
    for _ in 0..WARM_UP {
        life(&mut calls).await?;
    }
    let idle = idle(&mut calls).await?;
    let (count, mut lives) = (if waiting { WAITING_LIVES } else { LIVES }, Vec::new());
    let (before, begun) = (calls.read()?, Instant::now());
    for _ in 0..count {
        lives.push(life(&mut calls).await?);
    }
    let (all, seconds) = (calls.read()?.since(before), begun.elapsed().as_secs_f64());
    let median = |of: fn(&Calls) -> u64| {
        let counted = lives.iter().map(|life| of(life) as f64).collect();
        Estimate::of(counted).map_or(f64::NAN, |estimate| estimate.median)
    };
    let mean = |all: u64, idle: f64| (all as f64 - idle * seconds) / count as f64;
    let figures = [
        (SCRIPTS, median(|calls| calls.scripts)),
        (COMMANDS, median(|calls| calls.commands)),
        (MEAN_SCRIPTS, mean(all.scripts, idle.0)),
        (MEAN_COMMANDS, mean(all.commands, idle.1)),
    ];
    Ok(Measured { tasks: count as u64, figures: figures.into(), ..Measured::default() })
}

/// Returns the scripts and the commands per second of an idle server.
async fn idle(calls: &mut CallReader) -> Result<(f64, f64)> {
    let (before, begun) = (calls.read()?, Instant::now());
    tokio::time::sleep(IDLE).await;
    let (calls, seconds) = (calls.read()?.since(before), begun.elapsed().as_secs_f64());
    Ok((calls.scripts as f64 / seconds, calls.commands as f64 / seconds))
}

/// Waits until no script is called.
async fn rest(calls: &mut CallReader) -> Result<()> {
    loop {
        tokio::time::sleep(REST).await;
        let before = calls.read()?;
        tokio::time::sleep(REST).await;
        if calls.read()?.scripts == before.scripts {
            return Ok(());
        }
    }
}
