//! Load, and what is measured under it. Closed loop: so many connections, each of which does its script again and
//! again. What is counted lies within a window after a warm-up: work, requests, the processor time of each role, and
//! how long each request took.

use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use anyhow::{Result, bail};
use futures_util::future::try_join_all;
use hdrhistogram::Histogram;

use crate::ledger::{Ledger, payload};
use crate::processes::cpu_seconds;
use crate::sides::{Client, Job, Role, Side, Task};

/// How much load, and for how long.
#[derive(Clone, Copy, Debug)]
pub struct Plan {
    /// Connections at once.
    pub connections: usize,
    /// How long it runs before anything counts.
    pub warm_up: Duration,
    /// How long the window is.
    pub window: Duration,
    /// Bytes of a payload.
    pub payload: usize,
}

/// What took its time.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum Verb {
    /// One task submitted.
    Submit,
    /// One or many taken.
    Take,
    /// One finished.
    Finish,
    /// One finished and one taken.
    FinishAndTake,
    /// Many submitted.
    SubmitMany,
    /// Many finished.
    FinishMany,
    /// From when the submit was due to a worker having the task.
    PickUp,
    /// A request that asks for nothing.
    Empty,
}

/// Times in nanoseconds, to three digits.
pub type Times = Histogram<u64>;

fn times() -> Times {
    Times::new(3).expect("three digits are possible")
}

/// What one round of one side gave.
#[derive(Default)]
pub struct Measured {
    /// Length of the window in seconds.
    pub seconds: f64,
    /// Tasks done (of the workload's kind: submitted, or their whole life).
    pub tasks: u64,
    /// Requests answered.
    pub requests: u64,
    /// Seconds of processor time of the server,
    pub server: f64,
    /// of its Redis,
    pub redis: f64,
    /// and of this program.
    pub generator: f64,
    /// How long things took.
    pub latencies: BTreeMap<Verb, Times>,
    /// Figures of a workload's own.
    pub figures: BTreeMap<&'static str, f64>,
}

impl Measured {
    /// Microseconds of server and Redis for each task.
    pub fn cost(&self) -> f64 {
        (self.server + self.redis) / self.tasks as f64 * 1e6
    }

    /// Microseconds of Redis for each task.
    pub fn redis_cost(&self) -> f64 {
        self.redis / self.tasks as f64 * 1e6
    }

    /// Tasks a second.
    pub fn rate(&self) -> f64 {
        self.tasks as f64 / self.seconds
    }
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Phase {
    WarmUp,
    Window,
    Over,
}

/// One round: what its loops share.
pub struct Run<'a> {
    ledger: &'a Ledger,
    payload: usize,
    phase: Cell<Phase>,
    tasks: Cell<u64>,
    requests: Cell<u64>,
    latencies: RefCell<BTreeMap<Verb, Times>>,
}

impl<'a> Run<'a> {
    /// A round that has not begun to count.
    pub fn new(ledger: &'a Ledger, plan: &Plan) -> Self {
        Self {
            ledger,
            payload: plan.payload,
            phase: Cell::new(Phase::WarmUp),
            tasks: Cell::new(0),
            requests: Cell::new(0),
            latencies: RefCell::default(),
        }
    }

    /// Whether the loops are to end.
    pub fn over(&self) -> bool {
        self.phase.get() == Phase::Over
    }

    /// The payload of a new task.
    pub fn payload(&self) -> String {
        payload(self.ledger.number(), self.payload)
    }

    /// Awaits one request and counts it.
    pub async fn timed<T>(&self, verb: Verb, request: impl Future<Output = Result<T>>) -> Result<T> {
        let begun = Instant::now();
        let answer = request.await?;
        self.took(verb, begun.elapsed());
        Ok(answer)
    }

    /// Something took its time.
    pub fn took(&self, verb: Verb, time: Duration) {
        if self.phase.get() == Phase::Window {
            self.requests.set(self.requests.get() + 1);
            let mut latencies = self.latencies.borrow_mut();
            let times = latencies.entry(verb).or_insert_with(times);
            times.record(time.as_nanos() as u64).expect("it grows as it must");
        }
    }

    /// Work is done that the workload counts.
    pub fn counted(&self, tasks: usize) {
        if self.phase.get() == Phase::Window {
            self.tasks.set(self.tasks.get() + tasks as u64);
        }
    }

    /// These tasks have been finished.
    pub fn finished(&self, jobs: &[impl Job]) -> Result<()> {
        jobs.iter().try_for_each(|job| self.ledger.finish(job.number()))
    }

    /// Submits one.
    pub async fn submit(&self, client: &mut impl Client, queue: &str, key: Option<&str>) -> Result<()> {
        let payload = self.payload();
        self.timed(Verb::Submit, client.submit(queue, Task { payload: &payload, key })).await
    }

    /// Takes at least one; an error if there is none for long.
    pub async fn take<C: Client>(&self, client: &mut C, queue: &str, max: usize) -> Result<Vec<C::Job>> {
        let deadline = Instant::now() + 6 * WAIT;
        loop {
            let jobs = self.timed(Verb::Take, client.take(queue, max, WAIT)).await?;
            if !jobs.is_empty() {
                return Ok(jobs);
            }
            if Instant::now() > deadline {
                bail!("a task was submitted, but nobody gets it");
            }
        }
    }

    /// Finishes one.
    pub async fn finish<C: Client>(&self, client: &mut C, queue: &str, job: &C::Job) -> Result<()> {
        self.timed(Verb::Finish, client.finish(queue, job)).await?;
        self.ledger.finish(job.number())
    }

    /// Lets the loops warm up, then work for the length of the window, and says what was measured in it.
    pub async fn window(&self, plan: &Plan, processes: &[(Role, u32)]) -> Result<Measured> {
        tokio::time::sleep(plan.warm_up).await;
        let (before, begun) = (Account::now(processes)?, Instant::now());
        self.phase.set(Phase::Window);
        tokio::time::sleep(plan.window).await;
        self.phase.set(Phase::Over);
        let (after, seconds) = (Account::now(processes)?, begun.elapsed().as_secs_f64());
        Ok(Measured {
            seconds,
            tasks: self.tasks.get(),
            requests: self.requests.get(),
            server: after.server - before.server,
            redis: after.redis - before.redis,
            generator: after.generator - before.generator,
            latencies: self.latencies.take(),
            figures: BTreeMap::new(),
        })
    }
}

/// How long one request waits for tasks.
pub const WAIT: Duration = Duration::from_secs(5);

struct Account {
    server: f64,
    redis: f64,
    generator: f64,
}

impl Account {
    fn now(processes: &[(Role, u32)]) -> Result<Self> {
        let of = |role: Role| {
            processes.iter().filter(|(whose, _)| *whose == role).map(|(_, pid)| cpu_seconds(*pid)).sum::<Result<f64>>()
        };
        let generator =
            std::time::Duration::from(nix::time::clock_gettime(nix::time::ClockId::CLOCK_PROCESS_CPUTIME_ID)?);
        Ok(Self { server: of(Role::Server)?, redis: of(Role::Redis)?, generator: generator.as_secs_f64() })
    }
}

/// Every connection does `script` until the round is over; a script leaves nothing half done.
pub async fn closed<S, F>(side: &S, ledger: &Ledger, plan: &Plan, script: F) -> Result<Measured>
where
    S: Side,
    F: AsyncFn(&mut S::Client, &Run<'_>) -> Result<()>,
{
    let run = Run::new(ledger, plan);
    let clients = try_join_all((0..plan.connections).map(|_| side.connect())).await?;
    let loops = try_join_all(clients.into_iter().map(async |mut client| {
        while !run.over() {
            script(&mut client, &run).await?;
        }
        anyhow::Ok(())
    }));
    let processes = side.processes();
    let (measured, _) = tokio::try_join!(run.window(plan, &processes), loops)?;
    Ok(measured)
}
