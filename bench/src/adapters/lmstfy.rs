//! lmstfy: a server over HTTP and Redis. It publishes and consumes many jobs per request, and waits for jobs in whole
//! seconds; each job is deleted by its own request. Written after its documented API, and never run: it could not be
//! installed.

use std::net::SocketAddr;
use std::process::Command;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};

use super::installed::installed;
use super::{Adapter, Capability, Client, Numbered, Role, Settings, Task};
use crate::http::{Http, between};
use crate::ledger::number_in;
use crate::processes::{Directory, Process, Redis, free_port};

/// A server and its Redis.
pub struct Lmstfy {
    server: Process,
    redis: Redis,
    address: SocketAddr,
    version: String,
    _directory: Directory,
}

impl Adapter for Lmstfy {
    const CAPABILITIES: &[Capability] = &[Capability::Many];
    type Client = Connection;

    async fn start(settings: &Settings) -> Result<Self> {
        let peer = installed(settings, "lmstfy")?;
        let redis = Redis::start(settings, "lmstfy", &[]).await?;
        let directory = Directory::fresh(settings, "lmstfy")?;
        let address = SocketAddr::from(([127, 0, 0, 1], free_port()?));
        let configuration = format!(
            "Host = \"127.0.0.1\"\nPort = {}\nAdminHost = \"127.0.0.1\"\nAdminPort = {}\nLogLevel = \"error\"\n\
             EnableAccessLog = false\n[AdminRedis]\nAddr = \"{redis}\"\n[Pool]\n[Pool.default]\nAddr = \"{redis}\"\n",
            address.port(),
            free_port()?,
            redis = format_args!("127.0.0.1:{}", redis.port()),
        );
        std::fs::write(directory.path().join("lmstfy.toml"), configuration)?;
        let mut command = Command::new(peer.directory.join("lmstfy-server"));
        // Without tokens, which would cost a look-up per request.
        command.args(["-c", "lmstfy.toml", "-sv"]);
        let mut server = Process::start(command, directory.path())?;
        server.until(async || Http::connect(address).await.is_ok()).await.context("lmstfy")?;
        Ok(Self { server, redis, address, version: peer.version, _directory: directory })
    }

    fn version(&self) -> String {
        format!("{}, LogLevel error, no access log, no tokens, its Redis always over TCP", self.version)
    }

    fn processes(&self) -> Vec<(Role, u32)> {
        vec![(Role::Server, self.server.pid()), (Role::Redis, self.redis.pid())]
    }

    async fn connect(&self) -> Result<Connection> {
        Ok(Connection { http: Http::connect(self.address).await? })
    }

    fn redis(&self) -> Option<&Redis> {
        Some(&self.redis)
    }
}

/// One connection to the server.
pub struct Connection {
    http: Http,
}

type Held = Numbered<String>;

/// Parses the jobs of a response: each has its id, followed by its data in base64.
fn held(mut answer: &[u8]) -> Result<Vec<Held>> {
    let mut found = Vec::new();
    while let Some((id, rest)) = between(answer, b"\"job_id\":\"", b'"') {
        let (data, rest) = between(rest, b"\"data\":\"", b'"').context("a job without data")?;
        // A payload begins with its number: 32 characters contain all of it.
        let begin = decoded(&data[..data.len().min(32)]);
        let (number, _) = number_in(&begin).context("a job without a number")?;
        found.push(Held { number, id: std::str::from_utf8(id)?.to_owned() });
        answer = rest;
    }
    Ok(found)
}

/// Decodes base64, four characters at a time.
fn decoded(text: &[u8]) -> Vec<u8> {
    let sextet = |byte: u8| match byte {
        b'A'..=b'Z' => byte - b'A',
        b'a'..=b'z' => byte - b'a' + 26,
        b'0'..=b'9' => byte - b'0' + 52,
        b'+' => 62,
        _ => 63,
    };
    let three = |four: &[u8]| {
        let joined = four.iter().fold(0, |joined, byte| joined << 6 | u32::from(sextet(*byte)));
        let [_, bytes @ ..] = joined.to_be_bytes();
        bytes
    };
    text.chunks_exact(4).flat_map(three).collect()
}

impl Client for Connection {
    type Job = Held;

    async fn submit(&mut self, queue: &str, task: Task<'_>) -> Result<()> {
        let path = format!("/api/bench/{queue}?ttl=0&tries=5");
        self.http.send("PUT", &path, "", task.payload.as_bytes()).await?.expect(201)?;
        Ok(())
    }

    async fn take(&mut self, queue: &str, max: usize, wait: Duration) -> Result<Vec<Held>> {
        let path = format!("/api/bench/{queue}?timeout={}&ttr=600&count={max}", wait.as_secs());
        let answer = self.http.send("GET", &path, "", b"").await?;
        if answer.status == 404 {
            return Ok(Vec::new());
        }
        held(answer.expect(200)?)
    }

    async fn finish(&mut self, queue: &str, job: &Held) -> Result<()> {
        let path = format!("/api/bench/{queue}/job/{}", job.id);
        self.http.send("DELETE", &path, "", b"").await?.expect(204)?;
        Ok(())
    }

    async fn submit_many(&mut self, queue: &str, tasks: &[Task<'_>]) -> Result<()> {
        let path = format!("/api/bench/{queue}/bulk?ttl=0&tries=5");
        let payloads: Vec<&str> = tasks.iter().map(|task| task.payload).collect();
        let body = format!("[{}]", payloads.join(","));
        let answer = self.http.send("PUT", &path, "", body.as_bytes()).await?.expect(201)?;
        let answer: serde_json::Value = serde_json::from_slice(answer)?;
        let ids = answer["job_ids"].as_array().map_or(0, Vec::len);
        ensure!(ids == tasks.len(), "{ids} of {} jobs were published", tasks.len());
        Ok(())
    }

    async fn finish_many(&mut self, queue: &str, jobs: &[Held]) -> Result<()> {
        for job in jobs {
            self.finish(queue, job).await?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn jobs_are_read_from_a_reply() {
        let answer = br#"[{"msg":"new job","job_id":"a1","data":"eyJuIjoxMiwidGV4dCI6IiJ9"},{"job_id":"b2","data":"eyJuIjo3LCJ0ZXh0IjoiIn0="}]"#;
        let jobs = held(answer).unwrap();
        assert_eq!(jobs.iter().map(|job| (job.number, job.id.as_str())).collect::<Vec<_>>(), [(12, "a1"), (7, "b2")]);
    }
}
