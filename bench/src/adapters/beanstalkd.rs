//! beanstalkd: a server with its own protocol. Jobs are in its memory and in a log on disk, which is synced like Redis'
//! append-only file (`-f 1000`: once a second; `-f 0`: before each reply). It has no Redis. Every command is about one
//! job; many commands share one write.

use std::net::SocketAddr;
use std::process::Command;
use std::time::Duration;

use anyhow::{Context as _, Result, bail};

use super::installed::installed;
use super::{Adapter, Capability, Client, Fsync, Numbered, Role, Settings, Task};
use crate::ledger::number_in;
use crate::line_protocol::{LineConnection, number};
use crate::processes::{Directory, Process, free_port};

/// A server.
pub struct Beanstalkd {
    server: Process,
    address: SocketAddr,
    version: String,
    _directory: Directory,
}

impl Adapter for Beanstalkd {
    const CAPABILITIES: &[Capability] = &[Capability::FinishAndTake, Capability::Many];
    type Client = Connection;

    async fn start(settings: &Settings) -> Result<Self> {
        let peer = installed(settings, "beanstalkd")?;
        let directory = Directory::fresh(settings, "beanstalkd")?;
        std::fs::create_dir(directory.path().join("log"))?;
        let address = SocketAddr::from(([127, 0, 0, 1], free_port()?));
        let sync = match settings.fsync {
            Fsync::Everysec => "1000",
            Fsync::Always => "0",
        };
        let mut command = Command::new("beanstalkd");
        command.args(["-l", "127.0.0.1", "-p", &address.port().to_string(), "-b", "log", "-f", sync]);
        let mut server = Process::start(command, directory.path())?;
        server.until(async || LineConnection::connect(address).await.is_ok()).await.context("beanstalkd")?;
        let version = format!("{}, -b -f {sync}, many commands in one write", peer.version);
        Ok(Self { server, address, version, _directory: directory })
    }

    fn version(&self) -> String {
        self.version.clone()
    }

    fn processes(&self) -> Vec<(Role, u32)> {
        vec![(Role::Server, self.server.pid())]
    }

    async fn connect(&self) -> Result<Connection> {
        let lines = LineConnection::connect(self.address).await?;
        Ok(Connection { lines, used: String::new(), watched: "default".to_owned(), unread: 0 })
    }
}

/// One connection to the server.
pub struct Connection {
    lines: LineConnection,
    /// The tube of put jobs.
    used: String,
    /// The tube of reserved jobs.
    watched: String,
    /// Replies to changes of tubes that precede all others.
    unread: usize,
}

impl Connection {
    fn put_job(&mut self, queue: &str, task: Task<'_>) {
        if self.used != queue {
            self.lines.put(&[b"use ", queue.as_bytes(), b"\r\n"]);
            queue.clone_into(&mut self.used);
            self.unread += 1;
        }
        let length = task.payload.len().to_string();
        self.lines.put(&[b"put 0 0 600 ", length.as_bytes(), b"\r\n", task.payload.as_bytes(), b"\r\n"]);
    }

    /// Sends changes of tubes before all other commands; their replies come first too.
    fn put_watch(&mut self, queue: &str) {
        if self.watched != queue {
            self.lines.put(&[b"watch ", queue.as_bytes(), b"\r\nignore ", self.watched.as_bytes(), b"\r\n"]);
            queue.clone_into(&mut self.watched);
            self.unread += 2;
        }
    }

    fn put_reserve(&mut self, wait: u64) {
        self.lines.put(&[b"reserve-with-timeout ", wait.to_string().as_bytes(), b"\r\n"]);
    }

    fn put_delete(&mut self, job: &Held) {
        self.lines.put(&[b"delete ", &job.id, b"\r\n"]);
    }

    /// Sends all commands, and reads the replies to changes of tubes.
    async fn send(&mut self) -> Result<()> {
        self.lines.send().await?;
        for _ in 0..std::mem::take(&mut self.unread) {
            let line = self.lines.line().await?;
            if !line.starts_with(b"USING ") && !line.starts_with(b"WATCHING ") {
                bail!("reply to a change of tube: {}", String::from_utf8_lossy(line));
            }
        }
        Ok(())
    }

    async fn inserted(&mut self) -> Result<()> {
        let line = self.lines.line().await?;
        if !line.starts_with(b"INSERTED ") {
            bail!("reply to a put: {}", String::from_utf8_lossy(line));
        }
        Ok(())
    }

    /// Reads the reply to one `reserve-with-timeout`.
    async fn reserved(&mut self) -> Result<Option<Held>> {
        let line = self.lines.line().await?;
        if line == b"TIMED_OUT" {
            return Ok(None);
        }
        let mut words = line.split(|byte| *byte == b' ');
        let (Some(b"RESERVED"), Some(id), Some(length)) = (words.next(), words.next(), words.next()) else {
            bail!("reply to a reserve: {}", String::from_utf8_lossy(line));
        };
        let (id, length) = (id.to_vec(), number(length)? as usize);
        let (number, _) = number_in(self.lines.bytes(length).await?).context("a job without a number")?;
        Ok(Some(Held { number, id }))
    }
}

type Held = Numbered<Vec<u8>>;

impl Client for Connection {
    type Job = Held;

    async fn submit(&mut self, queue: &str, task: Task<'_>) -> Result<()> {
        self.submit_many(queue, &[task]).await
    }

    async fn take(&mut self, queue: &str, max: usize, wait: Duration) -> Result<Vec<Held>> {
        // Only the first waits: if it times out, the others need not wait.
        self.put_watch(queue);
        self.put_reserve(wait.as_secs());
        for _ in 1..max {
            self.put_reserve(0);
        }
        self.send().await?;
        let mut jobs = Vec::with_capacity(max);
        for _ in 0..max {
            jobs.extend(self.reserved().await?);
        }
        Ok(jobs)
    }

    async fn finish(&mut self, queue: &str, job: &Held) -> Result<()> {
        self.finish_many(queue, std::slice::from_ref(job)).await
    }

    async fn finish_and_take(&mut self, queue: &str, job: &Held, wait: Duration) -> Result<Vec<Held>> {
        self.put_watch(queue);
        self.put_delete(job);
        self.put_reserve(wait.as_secs());
        self.send().await?;
        self.lines.expect(b"DELETED").await?;
        Ok(self.reserved().await?.into_iter().collect())
    }

    async fn submit_many(&mut self, queue: &str, tasks: &[Task<'_>]) -> Result<()> {
        tasks.iter().for_each(|task| self.put_job(queue, *task));
        self.send().await?;
        for _ in tasks {
            self.inserted().await?;
        }
        Ok(())
    }

    async fn finish_many(&mut self, _queue: &str, jobs: &[Held]) -> Result<()> {
        jobs.iter().for_each(|job| self.put_delete(job));
        self.send().await?;
        for _ in jobs {
            self.lines.expect(b"DELETED").await?;
        }
        Ok(())
    }
}
