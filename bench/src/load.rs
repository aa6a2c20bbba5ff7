//! Load, and its measurements: work, requests, processor time by role, and durations, within a window after a warm-up.
//!
//! Closed loop: a fixed number of connections, each of which repeats its script. For the open loop see `open_loop`.

use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use anyhow::{Result, bail};
use futures_util::future::try_join_all;
use hdrhistogram::Histogram;

use crate::adapters::{Adapter, Client, Job, Task};
use crate::ledger::{Ledger, payload};
use crate::spent::{Observed, Spent};

/// Size and duration of the load.
#[derive(Clone, Copy, Debug)]
pub struct Plan {
    /// Number of connections.
    pub connections: usize,
    /// Duration of the warm-up.
    pub warm_up: Duration,
    /// Duration of the window.
    pub window: Duration,
    /// Duration of the window of a steady load (see `workloads::steady`).
    pub steady_window: Duration,
    /// Bytes of a payload.
    pub payload: usize,
}

/// A measured operation.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum Verb {
    /// Submit of one task.
    Submit,
    /// Claim of one or many.
    Take,
    /// Completion of one.
    Finish,
    /// Completion of one with the claim of one.
    FinishAndTake,
    /// Submit of many.
    SubmitMany,
    /// Completion of many.
    FinishMany,
    /// From the due time of the submit until a worker has the task.
    PickUp,
    /// From the due time of the submit until a task is completed.
    Life,
}

/// Times in nanoseconds, to three digits.
pub type Times = Histogram<u64>;

/// Returns an empty histogram.
pub fn times() -> Times {
    Times::new(3).expect("three digits are possible")
}

/// The results of one round of one system.
#[derive(Default)]
pub struct Measured {
    /// Length of the window in seconds.
    pub seconds: f64,
    /// Units of work (by workload: tasks submitted, or whole lives).
    pub tasks: u64,
    /// Requests with a reply.
    pub requests: u64,
    /// Costs of the window.
    pub spent: Spent,
    /// Durations by operation.
    pub latencies: BTreeMap<Verb, Times>,
    /// A workload's own figures.
    pub figures: BTreeMap<&'static str, f64>,
}

impl Measured {
    /// Processor time of server and Redis per task, in microseconds.
    pub fn cost(&self) -> f64 {
        self.server_cost() + self.redis_cost()
    }

    /// Processor time of the server per task, in microseconds.
    pub fn server_cost(&self) -> f64 {
        self.spent.server / self.tasks as f64 * 1e6
    }

    /// Processor time of Redis per task, in microseconds.
    pub fn redis_cost(&self) -> f64 {
        self.spent.redis / self.tasks as f64 * 1e6
    }

    /// Processor time of the server per request, in microseconds.
    pub fn request_cost(&self) -> f64 {
        self.spent.server / self.requests as f64 * 1e6
    }

    /// Calls of scripts of its Redis per task; NaN if they are not readable.
    pub fn scripts(&self) -> f64 {
        self.spent.calls.map_or(f64::NAN, |calls| calls.scripts as f64 / self.tasks as f64)
    }

    /// Calls of other commands of its Redis per task; NaN if they are not readable.
    pub fn commands(&self) -> f64 {
        self.spent.calls.map_or(f64::NAN, |calls| calls.commands as f64 / self.tasks as f64)
    }

    /// Tasks per second.
    pub fn rate(&self) -> f64 {
        self.tasks as f64 / self.seconds
    }
}

/// Start and end of the window.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Phase {
    WarmUp,
    Window(Instant),
    Over(Instant, Instant),
}

/// The state that the loops of one round share.
pub struct Run<'a> {
    ledger: &'a Ledger,
    payload: usize,
    phase: Cell<Phase>,
    tasks: Cell<u64>,
    requests: Cell<u64>,
    latencies: RefCell<BTreeMap<Verb, Times>>,
}

impl<'a> Run<'a> {
    /// Creates a round whose window has not begun.
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

    /// Whether the loops must end.
    pub fn over(&self) -> bool {
        matches!(self.phase.get(), Phase::Over(..))
    }

    /// Whether the window has ended before this time.
    pub fn ended_before(&self, time: Instant) -> bool {
        matches!(self.phase.get(), Phase::Over(_, ended) if ended <= time)
    }

    /// Returns the number and payload of a new task.
    pub fn next(&self) -> (u64, String) {
        let number = self.ledger.number();
        (number, payload(number, self.payload))
    }

    /// Awaits one request and counts it.
    pub async fn timed<T>(&self, verb: Verb, request: impl Future<Output = Result<T>>) -> Result<T> {
        let begun = Instant::now();
        let answer = request.await?;
        self.took(verb, begun.elapsed());
        Ok(answer)
    }

    /// Records a request and its duration.
    fn took(&self, verb: Verb, time: Duration) {
        if matches!(self.phase.get(), Phase::Window(_)) {
            self.requests.set(self.requests.get() + 1);
            self.record(verb, time);
        }
    }

    fn record(&self, verb: Verb, time: Duration) {
        let mut latencies = self.latencies.borrow_mut();
        let times = latencies.entry(verb).or_insert_with(times);
        times.record(time.as_nanos() as u64).expect("it grows as it must");
    }

    /// Counts finished work.
    pub fn counted(&self, tasks: usize) {
        if matches!(self.phase.get(), Phase::Window(_)) {
            self.tasks.set(self.tasks.get() + tasks as u64);
        }
    }

    /// Records the completion of work that was due then (see `open_loop`). It counts if it was due within the window,
    /// regardless of when it was done: slow work is not left out.
    pub fn arrived(&self, verb: Verb, due: Instant) {
        let within = match self.phase.get() {
            Phase::WarmUp => false,
            Phase::Window(begun) => begun <= due,
            Phase::Over(begun, ended) => begun <= due && due < ended,
        };
        if within {
            self.tasks.set(self.tasks.get() + 1);
            self.record(verb, due.elapsed());
        }
    }

    /// Records finished tasks.
    pub fn finished(&self, jobs: &[impl Job]) -> Result<()> {
        jobs.iter().try_for_each(|job| self.ledger.finish(job.number()))
    }

    /// Submits one task.
    pub async fn submit(&self, client: &mut impl Client, queue: &str, key: Option<&str>) -> Result<()> {
        let (_, payload) = self.next();
        self.timed(Verb::Submit, client.submit(queue, Task { payload: &payload, key })).await
    }

    /// Claims at least one task; an error after a timeout.
    pub async fn take<C: Client>(&self, client: &mut C, queue: &str, max: usize) -> Result<Vec<C::Job>> {
        let deadline = Instant::now() + 6 * WAIT;
        loop {
            let jobs = self.timed(Verb::Take, client.take(queue, max, WAIT)).await?;
            if !jobs.is_empty() {
                return Ok(jobs);
            }
            if Instant::now() > deadline {
                bail!("a submitted task was not delivered");
            }
        }
    }

    /// Finishes one task.
    pub async fn finish<C: Client>(&self, client: &mut C, queue: &str, job: &C::Job) -> Result<()> {
        self.timed(Verb::Finish, client.finish(queue, job)).await?;
        self.ledger.finish(job.number())
    }

    /// Runs warm-up and window; returns the length of the window in seconds and its costs.
    pub async fn window(&self, plan: &Plan, observed: &Observed) -> Result<(f64, Spent)> {
        tokio::time::sleep(plan.warm_up).await;
        let (before, begun) = (observed.now()?, Instant::now());
        self.phase.set(Phase::Window(begun));
        tokio::time::sleep(plan.window).await;
        let ended = Instant::now();
        self.phase.set(Phase::Over(begun, ended));
        Ok(((ended - begun).as_secs_f64(), observed.now()?.since(before)))
    }

    /// Returns the results after the load has ended.
    pub fn measured(self, (seconds, spent): (f64, Spent)) -> Measured {
        let (tasks, requests, latencies) = (self.tasks.get(), self.requests.get(), self.latencies.into_inner());
        Measured { seconds, tasks, requests, spent, latencies, figures: BTreeMap::new() }
    }
}

/// Wait of one claim.
pub const WAIT: Duration = Duration::from_secs(5);

/// Runs `script` repeatedly on every connection until the round is over; a script leaves no task unfinished.
pub async fn closed<S, F>(system: &S, ledger: &Ledger, plan: &Plan, script: F) -> Result<Measured>
where
    S: Adapter,
    F: AsyncFn(&mut S::Client, &Run<'_>) -> Result<()>,
{
    let run = Run::new(ledger, plan);
    let clients = try_join_all((0..plan.connections).map(|_| system.connect())).await?;
    let loops = try_join_all(clients.into_iter().map(async |mut client| {
        while !run.over() {
            script(&mut client, &run).await?;
        }
        anyhow::Ok(())
    }));
    let observed = Observed::of(system)?;
    let (window, _) = tokio::try_join!(run.window(plan, &observed), loops)?;
    Ok(run.measured(window))
}
