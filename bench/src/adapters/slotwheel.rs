//! Slotwheel: the release binary with a Redis configured like its embedded one.

use std::net::SocketAddr;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use anyhow::{Context as _, Result, bail};
use memchr::memmem;

use super::{Adapter, Capability, Client, Job, Role, Settings, Task};
use crate::http::{Http, between, is_ready};
use crate::ledger::number_in;
use crate::processes::{Directory, Process, Redis, free_port};

/// A server and its Redis.
pub struct Slotwheel {
    server: Process,
    redis: Redis,
    /// Address of the server.
    pub address: SocketAddr,
    version: String,
    _directory: Directory,
}

impl Slotwheel {
    /// Starts the given binary.
    pub async fn start_binary(binary: &Path, settings: &Settings) -> Result<Self> {
        let version = Command::new(binary).arg("--version").output();
        let version = version.with_context(|| format!("running {}", binary.display()))?;
        // As with its embedded Redis.
        let redis = Redis::start(settings, "slotwheel", &["--hash-max-listpack-value", "4096"]).await?;
        let directory = Directory::fresh(settings, "slotwheel")?;
        let address = SocketAddr::from(([127, 0, 0, 1], free_port()?));
        let mut command = Command::new(binary);
        command.args(["serve", "--listen", &address.to_string(), "--redis-url", &redis.url(settings.unix)]);
        command.args(["--shards", &settings.shards.to_string(), "--log", "warn"]);
        let mut server = Process::start(command, directory.path())?;
        server.until(async || is_ready(address, "/readyz").await).await.context("slotwheel")?;
        let version = String::from_utf8_lossy(&version.stdout).trim().replace("slotwheel ", "");
        Ok(Self { server, redis, address, version, _directory: directory })
    }
}

impl Adapter for Slotwheel {
    const CAPABILITIES: &[Capability] = &[Capability::FinishAndTake, Capability::Many, Capability::Keys];
    type Client = Connection;

    async fn start(settings: &Settings) -> Result<Self> {
        Self::start_binary(&settings.slotwheel, settings).await
    }

    fn version(&self) -> String {
        self.version.clone()
    }

    fn processes(&self) -> Vec<(Role, u32)> {
        vec![(Role::Server, self.server.pid()), (Role::Redis, self.redis.pid())]
    }

    async fn connect(&self) -> Result<Connection> {
        Ok(Connection { http: Http::connect(self.address).await?, body: Vec::new() })
    }

    async fn deleted(&self, queue: &str) -> Result<Option<u64>> {
        let mut http = Http::connect(self.address).await?;
        let queue = http.send("GET", &format!("/queues/{queue}"), "", b"").await?.expect(200)?;
        let counts = &serde_json::from_slice::<serde_json::Value>(queue)?["counts"];
        // Older builds call it `removed`.
        Ok(counts["deleted"].as_u64().or_else(|| counts["removed"].as_u64()))
    }

    fn redis(&self) -> Option<&Redis> {
        Some(&self.redis)
    }
}

/// One connection to the server.
pub struct Connection {
    http: Http,
    body: Vec<u8>,
}

/// A claimed task: its number, id and lease.
pub struct Held {
    number: u64,
    id: Vec<u8>,
    lease: Vec<u8>,
}

impl Job for Held {
    fn number(&self) -> u64 {
        self.number
    }
}

fn write(body: &mut Vec<u8>, parts: &[&[u8]]) {
    parts.iter().for_each(|part| body.extend_from_slice(part));
}

fn write_task(body: &mut Vec<u8>, queue: &str, task: Task<'_>) {
    write(body, &[b"{\"queue\":\"", queue.as_bytes(), b"\",\"payload\":", task.payload.as_bytes()]);
    if let Some(key) = task.key {
        write(body, &[b",\"key\":\"", key.as_bytes(), b"\""]);
    }
    body.push(b'}');
}

fn write_claim(body: &mut Vec<u8>, queue: &str, max: usize, wait: Duration) {
    write(body, &[b"{\"queues\":[\"", queue.as_bytes(), b"\"],\"worker\":\"bench\",\"max\":"]);
    write(body, &[max.to_string().as_bytes(), b",\"wait_ms\":", wait.as_millis().to_string().as_bytes(), b"}"]);
}

fn write_report(body: &mut Vec<u8>, job: &Held) {
    write(body, &[b"{\"id\":\"", &job.id, b"\",\"lease\":\"", &job.lease, b"\""]);
}

/// Parses the tasks of a response: each begins with its id, and its payload precedes its lease.
fn held(mut answer: &[u8]) -> Result<Vec<Held>> {
    let mut found = Vec::new();
    while let Some((id, rest)) = between(answer, b"{\"id\":\"", b'"') {
        let (number, rest) = number_in(rest).context("a task without its payload")?;
        let (lease, rest) = between(rest, b"\"lease\":\"", b'"').context("a task without a lease")?;
        found.push(Held { number, id: id.to_vec(), lease: lease.to_vec() });
        answer = rest;
    }
    Ok(found)
}

/// Fails unless all items of a batch succeeded.
fn all(answer: &[u8], status: &[u8], wanted: usize) -> Result<()> {
    let done = memmem::find_iter(answer, status).count();
    if done != wanted {
        bail!("{done} of {wanted} items succeeded: {}", String::from_utf8_lossy(&answer[..answer.len().min(2000)]));
    }
    Ok(())
}

impl Client for Connection {
    type Job = Held;

    async fn submit(&mut self, queue: &str, task: Task<'_>) -> Result<()> {
        self.body.clear();
        write_task(&mut self.body, queue, task);
        self.http.post("/tasks", &self.body).await?.expect(201)?;
        Ok(())
    }

    async fn take(&mut self, queue: &str, max: usize, wait: Duration) -> Result<Vec<Held>> {
        self.body.clear();
        write_claim(&mut self.body, queue, max, wait);
        held(self.http.post("/claim", &self.body).await?.expect(200)?)
    }

    async fn finish(&mut self, _queue: &str, job: &Held) -> Result<()> {
        self.body.clear();
        write_report(&mut self.body, job);
        self.body.push(b'}');
        self.http.post("/complete", &self.body).await?.expect(200)?;
        Ok(())
    }

    async fn finish_and_take(&mut self, queue: &str, job: &Held, wait: Duration) -> Result<Vec<Held>> {
        self.body.clear();
        write_report(&mut self.body, job);
        write(&mut self.body, &[b",\"claim\":"]);
        write_claim(&mut self.body, queue, 1, wait);
        self.body.push(b'}');
        let answer = self.http.post("/complete", &self.body).await?.expect(200)?;
        let tasks = memmem::find(answer, b"\"tasks\":").context("no tasks")?;
        held(&answer[tasks..])
    }

    async fn submit_many(&mut self, queue: &str, tasks: &[Task<'_>]) -> Result<()> {
        self.body.clear();
        write(&mut self.body, &[b"{\"tasks\":["]);
        for (place, task) in tasks.iter().enumerate() {
            if place > 0 {
                self.body.push(b',');
            }
            write_task(&mut self.body, queue, *task);
        }
        write(&mut self.body, &[b"]}"]);
        all(self.http.post("/tasks/batch", &self.body).await?.expect(200)?, b"{\"status\":201", tasks.len())
    }

    async fn finish_many(&mut self, _queue: &str, jobs: &[Held]) -> Result<()> {
        self.body.clear();
        write(&mut self.body, &[b"{\"completions\":["]);
        for (place, job) in jobs.iter().enumerate() {
            if place > 0 {
                self.body.push(b',');
            }
            write_report(&mut self.body, job);
            self.body.push(b'}');
        }
        write(&mut self.body, &[b"]}"]);
        all(self.http.post("/complete/batch", &self.body).await?.expect(200)?, b"\"status\":200", jobs.len())
    }
}
