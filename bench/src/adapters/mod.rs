//! The systems under test: what each of them must be able to do, one file a side.

pub mod beanstalkd;
pub mod bullmq;
pub mod elasticmq;
pub mod faktory;
mod installed;
pub mod lmstfy;
pub mod ocypod;
pub mod slotwheel;

use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Result, bail};

use crate::processes::Redis;

/// When Redis has its append-only file written to the disk.
#[derive(Clone, Copy, PartialEq, Eq, Debug, clap::ValueEnum)]
pub enum Fsync {
    /// Once a second.
    Everysec,
    /// Before each answer.
    Always,
}

/// What is the same for all sides of a run.
#[derive(Clone, Debug)]
pub struct Settings {
    /// When the append-only file is written to the disk, where a side has that.
    pub fsync: Fsync,
    /// Whether sides that can reach their Redis over a unix socket do so.
    pub unix: bool,
    /// Where fresh directories are made.
    pub place: PathBuf,
    /// Slotwheel's binary.
    pub slotwheel: PathBuf,
    /// Another build of it, for the side `other`.
    pub other: PathBuf,
    /// Where the peers are installed.
    pub peers: PathBuf,
}

/// Whose account a process' time goes to.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Role {
    /// The server, and whatever belongs to it.
    Server,
    /// Its Redis, or what stands in its place.
    Redis,
}

/// What only some sides can do.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Capability {
    /// `finish_and_take`.
    FinishAndTake,
    /// `submit_many`, `take` of many and `finish_many`.
    Many,
    /// Keys of tasks.
    Keys,
}

/// A system under test, running.
pub trait Side: Sized {
    /// What it can do beyond submit, take and finish.
    const CAPABILITIES: &[Capability];
    /// One connection.
    type Client: Client;

    /// Starts it with all that it needs in fresh directories; an error says in words why it cannot be had here.
    async fn start(settings: &Settings) -> Result<Self>;

    /// Its version and, where they are not those of all, its settings.
    fn version(&self) -> String;

    /// The processes whose time counts; their descendants count with them.
    fn processes(&self) -> Vec<(Role, u32)>;

    /// Whatever a queue needs before it is used.
    async fn prepare(&self, _queue: &str) -> Result<()> {
        Ok(())
    }

    /// A new connection.
    async fn connect(&self) -> Result<Self::Client>;

    /// How many tasks it has by its own count that nobody has finished, where finishing one that it does not know is
    /// answered as any other.
    async fn left(&self, _queue: &str) -> Result<Option<u64>> {
        Ok(None)
    }

    /// Its Redis, where this program has started one for it.
    fn redis(&self) -> Option<&Redis> {
        None
    }
}

/// A task to submit.
#[derive(Clone, Copy, Debug)]
pub struct Task<'a> {
    /// JSON text; carries the task's number (see `ledger`).
    pub payload: &'a str,
    /// Its key, for sides that have keys.
    pub key: Option<&'a str>,
}

/// A task in hand.
pub trait Job {
    /// The number that its payload carries (`ledger::number_in`).
    fn number(&self) -> u64;
}

/// A task in hand that is finished by its id.
pub struct Numbered<Id> {
    /// The number in its payload.
    pub number: u64,
    /// As the side names it.
    pub id: Id,
}

impl<Id> Job for Numbered<Id> {
    fn number(&self) -> u64 {
        self.number
    }
}

/// One connection, used by one loop. Every answer is checked: an error is the end of the round.
pub trait Client {
    /// A task taken, with what the side needs to finish it.
    type Job: Job;

    /// Submits one task; done when the side has answered that it has it.
    async fn submit(&mut self, queue: &str, task: Task<'_>) -> Result<()>;

    /// Takes at most `max` tasks; waits up to `wait` for the first.
    async fn take(&mut self, queue: &str, max: usize, wait: Duration) -> Result<Vec<Self::Job>>;

    /// Finishes one task.
    async fn finish(&mut self, queue: &str, job: &Self::Job) -> Result<()>;

    /// Finishes one task and takes one in the same request.
    async fn finish_and_take(&mut self, _queue: &str, _job: &Self::Job, _wait: Duration) -> Result<Vec<Self::Job>> {
        bail!("it cannot finish and take in one request")
    }

    /// Submits many tasks in one request.
    async fn submit_many(&mut self, _queue: &str, _tasks: &[Task<'_>]) -> Result<()> {
        bail!("it cannot submit many in one request")
    }

    /// Finishes many tasks in one request.
    async fn finish_many(&mut self, _queue: &str, _jobs: &[Self::Job]) -> Result<()> {
        bail!("it cannot finish many in one request")
    }
}
