//! (i) 16,000 waiting workers on one server: memory per worker, processor time while idle, latency of the next task,
//! and the time to answer all at a shutdown.

use std::cell::Cell;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};
use futures_util::future::try_join_all;
use nix::sys::resource::{Resource, getrlimit, setrlimit};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use tokio::sync::{Semaphore, mpsc};

use super::{Entry, Goal, QUEUE, Round, Script, Workload};
use crate::adapters::{Adapter, Client, Job as _, Role, Task};
use crate::ledger::{Ledger, payload};
use crate::load::{Measured, times};
use crate::processes::{cpu_seconds, has_ended, resident_bytes};
use crate::stats::Wanted;
use crate::systems::Kind;

const WAITERS: usize = 16_000;
/// Connections opened at a time.
const CONNECTING: usize = 500;
const HAND_OUTS: usize = 1_000;
const IDLE: Duration = Duration::from_secs(20);
/// Longer than the whole workload takes.
const WAIT: Duration = Duration::from_secs(60);

const MEMORY: &str = "KB of the server, a waiter";
const PROCESSOR: &str = "% of a processor while nothing happens";

pub(super) fn workload() -> Workload {
    let entries = [Kind::Slotwheel, Kind::Other].map(|kind| Entry::new(kind, Script::Waiters));
    let of = |name: &'static str| move |round: &Round| round.get("slotwheel")?.figures.get(name).copied();
    let goals = vec![
        Goal::new("KB of the server, a waiter, its connection included", Wanted::AtMost(20.0), of(MEMORY)),
        Goal::new("% of a processor while nothing happens", Wanted::AtMost(1.0), of(PROCESSOR)),
    ];
    Workload { goals, once: true, ..Workload::new("i", "16,000 waiting workers", entries.into()) }
}

pub(super) async fn round<S: Adapter>(system: &S, ledger: &Ledger) -> Result<Measured> {
    let (_, most) = getrlimit(Resource::RLIMIT_NOFILE)?;
    setrlimit(Resource::RLIMIT_NOFILE, most, most)?;
    let processes = system.processes();
    let &(_, server) = processes.iter().find(|(role, _)| *role == Role::Server).context("a server")?;
    let before = resident_bytes(server)?;
    let (connecting, connected) = (Semaphore::new(CONNECTING), Cell::new(0));
    let stopped_at: Cell<Option<Instant>> = Cell::new(None);
    let last: Cell<Option<Instant>> = Cell::new(None);
    let answered = Cell::new(0);
    let (served, mut heard) = mpsc::unbounded_channel();
    let workers = try_join_all((0..WAITERS).map(async |_| {
        // The first claim is sent at once, because servers close silent connections.
        let turn = connecting.acquire().await?;
        let mut client = system.connect().await?;
        drop(turn);
        connected.set(connected.get() + 1);
        loop {
            let answer = client.take(QUEUE, 1, WAIT).await;
            if stopped_at.get().is_some() {
                answered.set(answered.get() + usize::from(answer.is_ok()));
                last.set(Some(Instant::now()));
                return Ok(());
            }
            for job in answer? {
                let _ = served.send(Instant::now());
                client.finish(QUEUE, &job).await?;
                ledger.finish(job.number())?;
            }
        }
    }));
    let conduct = async {
        while connected.get() < WAITERS {
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
        wait_until_idle(server).await?;
        let memory = (resident_bytes(server)? - before) / WAITERS as f64 / 1024.0;
        let used = cpu_seconds(server)?;
        tokio::time::sleep(IDLE).await;
        let idle = (cpu_seconds(server)? - used) / IDLE.as_secs_f64() * 100.0;
        let mut submitter = system.connect().await?;
        let mut taken = times();
        for _ in 0..HAND_OUTS {
            let payload = payload(ledger.number(), 100);
            let sent = Instant::now();
            submitter.submit(QUEUE, Task { payload: &payload, key: None }).await?;
            let served = heard.recv().await.context("workers")?;
            taken.record(served.duration_since(sent).as_nanos() as u64)?;
        }
        wait_until_idle(server).await?;
        let stop = Instant::now();
        stopped_at.set(Some(stop));
        kill(Pid::from_raw(server as i32), Signal::SIGTERM)?;
        while !has_ended(server) {
            if stop.elapsed() > WAIT {
                bail!("the server does not stop");
            }
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
        anyhow::Ok((memory, idle, taken, stop, stop.elapsed()))
    };
    let ((memory, idle, taken, stop, ended), _) = tokio::try_join!(conduct, workers)?;
    let ms = |nanoseconds: u64| nanoseconds as f64 / 1e6;
    let figures = [
        (MEMORY, memory),
        (PROCESSOR, idle),
        ("pick-up p50, ms", ms(taken.value_at_quantile(0.5))),
        ("pick-up p99, ms", ms(taken.value_at_quantile(0.99))),
        ("shutdown: answered", f64::from(answered.get() as u32)),
        ("shutdown: last answer after, ms", last.get().map_or(0.0, |last| (last - stop).as_secs_f64() * 1000.0)),
        ("shutdown: ended after, ms", ended.as_secs_f64() * 1000.0),
    ];
    Ok(Measured { tasks: HAND_OUTS as u64, figures: figures.into(), ..Measured::default() })
}

/// Waits until the server is idle.
async fn wait_until_idle(server: u32) -> Result<()> {
    loop {
        let used = cpu_seconds(server)?;
        tokio::time::sleep(Duration::from_millis(500)).await;
        if cpu_seconds(server)? - used < 0.01 {
            return Ok(());
        }
    }
}
