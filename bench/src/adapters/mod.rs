//! Adapters: one file per system under test, each with the same operations.

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

/// Redis' appendfsync.
#[derive(Clone, Copy, PartialEq, Eq, Debug, clap::ValueEnum)]
pub enum Fsync {
    /// Once a second.
    Everysec,
    /// Before each reply.
    Always,
}

/// Settings common to all systems of a run.
#[derive(Clone, Debug)]
pub struct Settings {
    /// When the append-only file is synced, if the system has one.
    pub fsync: Fsync,
    /// Whether systems that can use a unix socket to Redis do so.
    pub unix: bool,
    /// Where fresh directories are made.
    pub place: PathBuf,
    /// Slotwheel's binary.
    pub slotwheel: PathBuf,
    /// Another build, for the system `other`.
    pub other: PathBuf,
    /// Directory of the installed peers.
    pub peers: PathBuf,
    /// Shards of Slotwheel.
    pub shards: u32,
}

#[cfg(test)]
impl Settings {
    /// Settings for a Redis of a test.
    pub fn for_tests() -> Self {
        Self {
            fsync: Fsync::Everysec,
            unix: false,
            place: std::env::temp_dir(),
            slotwheel: PathBuf::new(),
            other: PathBuf::new(),
            peers: PathBuf::new(),
            shards: 1,
        }
    }
}

/// The role of a process, by which its time is accounted.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Role {
    /// The server and its helper processes.
    Server,
    /// Its Redis, or its substitute.
    Redis,
}

/// An optional operation.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Capability {
    /// `finish_and_take`.
    FinishAndTake,
    /// `submit_many`, `take` of many and `finish_many`.
    Many,
    /// Keys of tasks.
    Keys,
}

/// A running system under test.
pub trait Adapter: Sized {
    /// Operations beyond submit, take and finish.
    const CAPABILITIES: &[Capability];
    /// One connection.
    type Client: Client;

    /// Starts the system in fresh directories; the error explains why it is not available here.
    async fn start(settings: &Settings) -> Result<Self>;

    /// Its version, and settings that differ from the common ones.
    fn version(&self) -> String;

    /// The measured processes, without their descendants, which are included.
    fn processes(&self) -> Vec<(Role, u32)>;

    /// Prepares a queue for use.
    async fn prepare(&self, _queue: &str) -> Result<()> {
        Ok(())
    }

    /// Opens a connection.
    async fn connect(&self) -> Result<Self::Client>;

    /// The number of unfinished tasks by the system's own count, if it accepts the completion of unknown tasks.
    async fn left(&self, _queue: &str) -> Result<Option<u64>> {
        Ok(None)
    }

    /// The number of tasks that it has deleted since its start, if it reports it.
    async fn deleted(&self, _queue: &str) -> Result<Option<u64>> {
        Ok(None)
    }

    /// Its Redis, if this program has started one.
    fn redis(&self) -> Option<&Redis> {
        None
    }
}

/// A task to submit.
#[derive(Clone, Copy, Debug)]
pub struct Task<'a> {
    /// JSON text with the task's number (see `ledger`).
    pub payload: &'a str,
    /// Its key, for systems with keys.
    pub key: Option<&'a str>,
}

/// A claimed task.
pub trait Job {
    /// The number in its payload (`ledger::number_in`).
    fn number(&self) -> u64;
}

/// A claimed task that is finished by its id.
pub struct Numbered<Id> {
    /// The number in its payload.
    pub number: u64,
    /// The system's id.
    pub id: Id,
}

impl<Id> Job for Numbered<Id> {
    fn number(&self) -> u64 {
        self.number
    }
}

/// One connection, used by one loop. Every reply is checked: an error ends the round.
pub trait Client {
    /// A claimed task, with the data to finish it.
    type Job: Job;

    /// Submits one task; returns when the system has acknowledged it.
    async fn submit(&mut self, queue: &str, task: Task<'_>) -> Result<()>;

    /// Claims at most `max` tasks; waits up to `wait` for the first.
    async fn take(&mut self, queue: &str, max: usize, wait: Duration) -> Result<Vec<Self::Job>>;

    /// Finishes one task.
    async fn finish(&mut self, queue: &str, job: &Self::Job) -> Result<()>;

    /// Finishes one task and takes one in the same request.
    async fn finish_and_take(&mut self, _queue: &str, _job: &Self::Job, _wait: Duration) -> Result<Vec<Self::Job>> {
        bail!("finish and take in one request is not supported")
    }

    /// Submits many tasks in one request.
    async fn submit_many(&mut self, _queue: &str, _tasks: &[Task<'_>]) -> Result<()> {
        bail!("submitting many in one request is not supported")
    }

    /// Finishes many tasks in one request.
    async fn finish_many(&mut self, _queue: &str, _jobs: &[Self::Job]) -> Result<()> {
        bail!("finishing many in one request is not supported")
    }
}
