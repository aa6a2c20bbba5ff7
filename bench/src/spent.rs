//! Costs of a system in some time: processor time by role, and calls of its Redis.

use std::cell::RefCell;
use std::time::Duration;

use anyhow::Result;
use nix::time::{ClockId, clock_gettime};

use crate::adapters::{Adapter, Role};
use crate::command_stats::{CallReader, Calls};
use crate::processes::{Redis, cpu_seconds};

/// The processes of a system, and its Redis if this program has started it.
#[derive(Default)]
pub struct Observed {
    processes: Vec<(Role, u32)>,
    calls: Option<RefCell<CallReader>>,
}

impl Observed {
    /// Observes a system; opens a connection to its Redis.
    pub fn of(system: &impl Adapter) -> Result<Self> {
        Self::new(system.processes(), system.redis())
    }

    /// Observes processes and a Redis.
    pub fn new(processes: Vec<(Role, u32)>, redis: Option<&Redis>) -> Result<Self> {
        Ok(Self { processes, calls: redis.map(CallReader::of).transpose()?.map(RefCell::new) })
    }

    /// Returns the costs since the processes were started.
    pub fn now(&self) -> Result<Spent> {
        let calls = self.calls.as_ref().map(|calls| calls.borrow_mut().read()).transpose()?;
        let of = |role: Role| {
            let pids = self.processes.iter().filter(|(whose, _)| *whose == role).map(|(_, pid)| *pid);
            pids.map(cpu_seconds).sum::<Result<f64>>()
        };
        let generator = Duration::from(clock_gettime(ClockId::CLOCK_PROCESS_CPUTIME_ID)?).as_secs_f64();
        Ok(Spent { server: of(Role::Server)?, redis: of(Role::Redis)?, generator, calls })
    }
}

/// Costs.
#[derive(Clone, Copy, Default)]
pub struct Spent {
    /// Processor time of the server, in seconds.
    pub server: f64,
    /// Processor time of its Redis, in seconds.
    pub redis: f64,
    /// Processor time of this program, in seconds.
    pub generator: f64,
    /// Calls of its Redis, if it is readable.
    pub calls: Option<Calls>,
}

impl Spent {
    /// Returns the costs since an earlier reading.
    pub fn since(self, earlier: Self) -> Self {
        Self {
            server: self.server - earlier.server,
            redis: self.redis - earlier.redis,
            generator: self.generator - earlier.generator,
            calls: self.calls.zip(earlier.calls).map(|(calls, before)| calls.since(before)),
        }
    }
}
