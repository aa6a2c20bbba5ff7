//! ocypod: a server over HTTP and Redis. It has no batches and no waiting claims: a client without a task asks again at
//! once. Its log is silent. It has one thread for requests: its default, one per processor, costs a sixth more per job
//! here. It keeps four connections to Redis per processor, and completed jobs for five minutes (its defaults).

use std::net::SocketAddr;
use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};

use super::installed::installed;
use super::{Adapter, Capability, Client, Numbered, Role, Settings, Task};
use crate::http::{Http, between, is_ready};
use crate::ledger::number_in;
use crate::processes::{Directory, Process, Redis, free_port};

/// A server and its Redis.
pub struct Ocypod {
    server: Process,
    redis: Redis,
    address: SocketAddr,
    version: String,
    _directory: Directory,
}

impl Adapter for Ocypod {
    const CAPABILITIES: &[Capability] = &[];
    type Client = Connection;

    async fn start(settings: &Settings) -> Result<Self> {
        let peer = installed(settings, "ocypod")?;
        let redis = Redis::start(settings, "ocypod", &[]).await?;
        let directory = Directory::fresh(settings, "ocypod")?;
        let address = SocketAddr::from(([127, 0, 0, 1], free_port()?));
        let configuration = format!(
            "[server]\nhost = \"127.0.0.1\"\nport = {}\nthreads = 1\nlog_level = \"error\"\n[redis]\nurl = \"{}\"\n",
            address.port(),
            redis.url(settings.unix)
        );
        std::fs::write(directory.path().join("ocypod.toml"), configuration)?;
        let mut command = Command::new(peer.directory.join("bin/ocypod-server"));
        command.arg("ocypod.toml");
        let mut server = Process::start(command, directory.path())?;
        server.until(async || is_ready(address, "/health").await).await.context("ocypod")?;
        Ok(Self { server, redis, address, version: peer.version, _directory: directory })
    }

    fn version(&self) -> String {
        format!("{}, threads 1, log_level error", self.version)
    }

    fn processes(&self) -> Vec<(Role, u32)> {
        vec![(Role::Server, self.server.pid()), (Role::Redis, self.redis.pid())]
    }

    async fn prepare(&self, queue: &str) -> Result<()> {
        let mut http = Http::connect(self.address).await?;
        let answer = http.send("PUT", &format!("/queue/{queue}"), "application/json", b"{\"timeout\":\"10m\"}").await?;
        match answer.status {
            // Created, or existing.
            201 | 204 => Ok(()),
            other => bail!("status of creating a queue: {other}"),
        }
    }

    async fn connect(&self) -> Result<Connection> {
        Ok(Connection { http: Http::connect(self.address).await?, path: String::new(), body: Vec::new() })
    }

    fn redis(&self) -> Option<&Redis> {
        Some(&self.redis)
    }
}

/// One connection to the server.
pub struct Connection {
    http: Http,
    path: String,
    body: Vec<u8>,
}

impl Connection {
    fn path(&mut self, parts: &[&str]) {
        self.path.clear();
        parts.iter().for_each(|part| self.path.push_str(part));
    }
}

type Held = Numbered<String>;

impl Client for Connection {
    type Job = Held;

    async fn submit(&mut self, queue: &str, task: Task<'_>) -> Result<()> {
        self.path(&["/queue/", queue, "/job"]);
        self.body.clear();
        for part in ["{\"input\":", task.payload, "}"] {
            self.body.extend_from_slice(part.as_bytes());
        }
        self.http.post(&self.path, &self.body).await?.expect(201)?;
        Ok(())
    }

    async fn take(&mut self, queue: &str, _max: usize, wait: Duration) -> Result<Vec<Held>> {
        self.path(&["/queue/", queue, "/job"]);
        let deadline = Instant::now() + wait;
        loop {
            let answer = self.http.send("GET", &self.path, "", b"").await?;
            if answer.status == 204 {
                if Instant::now() > deadline {
                    return Ok(Vec::new());
                }
                continue;
            }
            let body = answer.expect(200)?;
            let (id, rest) = between(body, b"{\"id\":", b',').context("a job without an id")?;
            let (number, _) = number_in(rest).context("a job without its input")?;
            return Ok(vec![Held { number, id: std::str::from_utf8(id)?.to_owned() }]);
        }
    }

    async fn finish(&mut self, _queue: &str, job: &Held) -> Result<()> {
        self.path(&["/job/", &job.id]);
        let body = b"{\"status\":\"completed\"}";
        self.http.send("PATCH", &self.path, "application/json", body).await?.expect(204)?;
        Ok(())
    }
}
