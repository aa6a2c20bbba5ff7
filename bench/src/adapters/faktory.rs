//! Faktory: a server with its own protocol, on Redis by unix socket only. It fetches and acknowledges one job per
//! command; workers that want many send many commands, here in one write. Push has batches. `FETCH` waits for at most
//! two seconds, also after its connection is closed: a job that arrives then belongs to that connection for half an
//! hour. So a round begins when no `FETCH` waits.
//!
//! It always starts a redis-server; the first one in its PATH (`bench/peers/faktory`) leads to the Redis that is
//! started here, with common settings.

use std::net::SocketAddr;
use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};
use serde_json::Value;

use super::installed::installed;
use super::{Adapter, Capability, Client, Numbered, Role, Settings, Task};
use crate::http::between;
use crate::ledger::number_in;
use crate::line_protocol::{LineConnection, number};
use crate::processes::{Directory, Process, Redis, free_port};

/// Faktory closes the connections of a worker without a heartbeat for a minute.
const BEAT: Duration = Duration::from_secs(15);
/// All connections belong to one worker, like those of a multi-threaded process.
const WORKER: &str = "slotwheelbench";

/// A server and its Redis.
pub struct Faktory {
    server: Process,
    redis: Redis,
    address: SocketAddr,
    version: String,
    _directory: Directory,
}

impl Adapter for Faktory {
    const CAPABILITIES: &[Capability] = &[Capability::FinishAndTake, Capability::Many];
    type Client = Connection;

    async fn start(settings: &Settings) -> Result<Self> {
        let peer = installed(settings, "faktory")?;
        let redis = Redis::start(settings, "faktory", &[]).await?;
        let directory = Directory::fresh(settings, "faktory")?;
        let address = SocketAddr::from(([127, 0, 0, 1], free_port()?));
        let web = SocketAddr::from(([127, 0, 0, 1], free_port()?));
        let path = std::env::var("PATH").unwrap_or_default();
        let mut command = Command::new(peer.directory.join("faktory"));
        command.args(["-b", &address.to_string(), "-w", &web.to_string(), "-l", "error"]);
        command.arg("-d").arg(directory.path().join("db")).arg("-c").arg(directory.path().join("configuration"));
        // Both processors, its default, and less garbage collection.
        command.env("GOGC", "400");
        command.env("PATH", format!("{}:{path}", peer.directory.join("redis").display()));
        command.env("REDIS_SOCKET", redis.url(true).trim_start_matches("unix://"));
        let mut server = Process::start(command, directory.path())?;
        server.until(async || Connection::new(address).await.is_ok()).await.context("faktory")?;
        Ok(Self { server, redis, address, version: peer.version, _directory: directory })
    }

    fn version(&self) -> String {
        format!(
            "{}, GOGC=400, log level error, its Redis always over a unix socket, many commands in one write",
            self.version
        )
    }

    fn processes(&self) -> Vec<(Role, u32)> {
        vec![(Role::Server, self.server.pid()), (Role::Redis, self.redis.pid())]
    }

    async fn prepare(&self, _queue: &str) -> Result<()> {
        while self.redis.info("blocked_clients")? > 0 {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        Ok(())
    }

    async fn connect(&self) -> Result<Connection> {
        Connection::new(self.address).await
    }

    /// It replies `+OK` to any `ACK`.
    async fn left(&self, _queue: &str) -> Result<Option<u64>> {
        let mut lines = self.connect().await?.lines;
        lines.put(&[b"INFO\r\n"]);
        lines.send().await?;
        let length = number(lines.line().await?.strip_prefix(b"$").context("a length")?)? as usize;
        let info: Value = serde_json::from_slice(lines.bytes(length).await?)?;
        let [queued, working] =
            ["/faktory/total_enqueued", "/faktory/sets/working"].map(|at| info.pointer(at).and_then(Value::as_u64));
        Ok(Some(queued.context("total_enqueued")? + working.context("working")?))
    }

    fn redis(&self) -> Option<&Redis> {
        Some(&self.redis)
    }
}

/// One connection to the server.
pub struct Connection {
    lines: LineConnection,
    beaten: Instant,
}

impl Connection {
    async fn new(address: SocketAddr) -> Result<Self> {
        let mut lines = LineConnection::connect(address).await?;
        lines.expect(b"+HI {\"v\":2}").await?;
        let hello =
            format!("HELLO {{\"v\":2,\"hostname\":\"bench\",\"wid\":\"{WORKER}\",\"pid\":1,\"labels\":[]}}\r\n");
        lines.put(&[hello.as_bytes()]);
        lines.send().await?;
        lines.expect(b"+OK").await?;
        Ok(Self { lines, beaten: Instant::now() })
    }

    fn put_job(&mut self, queue: &str, task: Task<'_>) -> Result<()> {
        let (number, _) = number_in(task.payload.as_bytes()).context("a payload without a number")?;
        let id = format!("bench{number:011}");
        let parts =
            ["{\"jid\":\"", &id, "\",\"jobtype\":\"bench\",\"queue\":\"", queue, "\",\"args\":[", task.payload, "]}"];
        parts.iter().for_each(|part| self.lines.put(&[part.as_bytes()]));
        Ok(())
    }

    fn put_ack(&mut self, job: &Held) {
        self.lines.put(&[b"ACK {\"jid\":\"", &job.id, b"\"}\r\n"]);
    }

    /// Reads the reply to one `FETCH`.
    async fn job(&mut self) -> Result<Option<Held>> {
        let line = self.lines.line().await?;
        let Some(length) = line.strip_prefix(b"$") else { bail!("reply: {}", String::from_utf8_lossy(line)) };
        if length == b"-1" {
            return Ok(None);
        }
        let length = number(length)? as usize;
        let job = self.lines.bytes(length).await?;
        let (id, rest) = between(job, b"\"jid\":\"", b'"').context("a job without an id")?;
        let (number, _) = number_in(rest).context("a job without its arguments")?;
        Ok(Some(Held { number, id: id.to_vec() }))
    }

    async fn beat(&mut self) -> Result<()> {
        if self.beaten.elapsed() > BEAT {
            self.lines.put(&[b"BEAT {\"wid\":\"", WORKER.as_bytes(), b"\"}\r\n"]);
            self.lines.send().await?;
            self.lines.expect(b"+OK").await?;
            self.beaten = Instant::now();
        }
        Ok(())
    }
}

type Held = Numbered<Vec<u8>>;

impl Client for Connection {
    type Job = Held;

    async fn submit(&mut self, queue: &str, task: Task<'_>) -> Result<()> {
        self.lines.put(&[b"PUSH "]);
        self.put_job(queue, task)?;
        self.lines.put(&[b"\r\n"]);
        self.lines.send().await?;
        self.lines.expect(b"+OK").await
    }

    async fn take(&mut self, queue: &str, max: usize, _wait: Duration) -> Result<Vec<Held>> {
        self.beat().await?;
        for _ in 0..max {
            self.lines.put(&[b"FETCH ", queue.as_bytes(), b"\r\n"]);
        }
        self.lines.send().await?;
        let mut jobs = Vec::with_capacity(max);
        for _ in 0..max {
            jobs.extend(self.job().await?);
        }
        Ok(jobs)
    }

    async fn finish(&mut self, _queue: &str, job: &Held) -> Result<()> {
        self.put_ack(job);
        self.lines.send().await?;
        self.lines.expect(b"+OK").await
    }

    async fn finish_and_take(&mut self, queue: &str, job: &Held, _wait: Duration) -> Result<Vec<Held>> {
        self.beat().await?;
        self.put_ack(job);
        self.lines.put(&[b"FETCH ", queue.as_bytes(), b"\r\n"]);
        self.lines.send().await?;
        self.lines.expect(b"+OK").await?;
        Ok(self.job().await?.into_iter().collect())
    }

    async fn submit_many(&mut self, queue: &str, tasks: &[Task<'_>]) -> Result<()> {
        self.lines.put(&[b"PUSHB ["]);
        for (place, task) in tasks.iter().enumerate() {
            if place > 0 {
                self.lines.put(&[b","]);
            }
            self.put_job(queue, *task)?;
        }
        self.lines.put(&[b"]\r\n"]);
        self.lines.send().await?;
        // The rejected jobs with reasons: none.
        self.lines.expect(b"$2").await?;
        self.lines.expect(b"{}").await
    }

    async fn finish_many(&mut self, _queue: &str, jobs: &[Held]) -> Result<()> {
        jobs.iter().for_each(|job| self.put_ack(job));
        self.lines.send().await?;
        for _ in jobs {
            self.lines.expect(b"+OK").await?;
        }
        Ok(())
    }
}
