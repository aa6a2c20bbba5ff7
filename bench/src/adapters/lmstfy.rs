//! lmstfy: a server over HTTP and Redis. It publishes and consumes many jobs per request, and waits for jobs in whole
//! seconds; each job is deleted by its own request. Written after its API and its source. Never run where this was
//! written: the package registry there refuses it.

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

/// The most jobs that one request publishes; lmstfy refuses more.
const PUBLISHED: usize = 64;

/// Parses the jobs of a response, an object or a list of objects. Go sorts the names of a map, so the data precedes the
/// id; no order is relied on. No object contains another, and no value a brace: names, ids and base64 have none.
fn held(answer: &[u8]) -> Result<Vec<Held>> {
    let mut found = Vec::new();
    for object in answer.split(|byte| *byte == b'}') {
        let Some((id, _)) = between(object, b"\"job_id\":\"", b'"') else { continue };
        let (data, _) = between(object, b"\"data\":\"", b'"').context("a job without data")?;
        // A payload begins with its number: 32 characters contain all of it.
        let begin = decoded(&data[..data.len().min(32)]);
        let (number, _) = number_in(&begin).context("a job without a number")?;
        found.push(Held { number, id: std::str::from_utf8(id)?.to_owned() });
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
        for tasks in tasks.chunks(PUBLISHED) {
            let payloads: Vec<&str> = tasks.iter().map(|task| task.payload).collect();
            let body = format!("[{}]", payloads.join(","));
            let answer = self.http.send("PUT", &path, "", body.as_bytes()).await?.expect(201)?;
            let answer: serde_json::Value = serde_json::from_slice(answer)?;
            let ids = answer["job_ids"].as_array().map_or(0, Vec::len);
            ensure!(ids == tasks.len(), "{ids} of {} jobs were published", tasks.len());
        }
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
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

    use super::*;
    use crate::ledger::payload;

    /// The fields of a job as Go's encoding/json writes them.
    const FIRST: &str = r#"{"data":"eyJuIjoxMiwidGV4dCI6Inh4eHgifQ==","elapsed_ms":3,"job_id":"a1","msg":"new job","namespace":"bench","queue":"bench","remain_tries":4,"ttl":0}"#;
    const SECOND: &str = r#"{"data":"eyJuIjo3LCJ0ZXh0IjoieHh4eCJ9","elapsed_ms":3,"job_id":"b2","msg":"new job","namespace":"bench","queue":"bench","remain_tries":4,"ttl":0}"#;

    fn numbers_and_ids(answer: &str) -> Vec<(u64, String)> {
        held(answer.as_bytes()).unwrap().into_iter().map(|job| (job.number, job.id)).collect()
    }

    /// The same object with its fields from last to first.
    fn reversed(object: &str) -> String {
        let fields: Vec<&str> = object.trim_matches(['{', '}']).split(',').rev().collect();
        format!("{{{}}}", fields.join(","))
    }

    #[test]
    fn jobs_are_read_in_any_order_of_their_fields() {
        let (first, second) = ((12, "a1".to_owned()), (7, "b2".to_owned()));
        let both = [first, second];
        assert_eq!(numbers_and_ids(FIRST), both[..1]);
        assert_eq!(numbers_and_ids(&reversed(FIRST)), both[..1]);
        for list in [format!("[{FIRST},{SECOND}]"), format!("[{},{}]", reversed(FIRST), reversed(SECOND))] {
            assert_eq!(numbers_and_ids(&list), both, "{list}");
        }
        assert_eq!(numbers_and_ids("[]"), []);
        assert!(held(br#"{"job_id":"a1","msg":"new job"}"#).is_err(), "a job without data is an error");
    }

    #[tokio::test]
    async fn hundred_tasks_are_published_in_requests_of_at_most_64() {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        // Answers each request with as many ids as its body has jobs, and returns these numbers.
        let server = tokio::spawn(async move {
            let (mut stream, _) = listener.accept().await.unwrap();
            let (mut received, mut sizes) = (Vec::new(), Vec::new());
            while stream.read_buf(&mut received).await.unwrap() > 0 {
                let text = String::from_utf8(received.clone()).unwrap();
                let Some((_, body)) = text.split_once("\r\n\r\n").filter(|(_, body)| body.ends_with(']')) else {
                    continue;
                };
                let jobs: Vec<serde_json::Value> = serde_json::from_str(body).unwrap();
                let answer = format!("{{\"job_ids\":[{}],\"msg\":\"published\"}}", vec!["\"a\""; jobs.len()].join(","));
                let head = format!("HTTP/1.1 201 Created\r\nContent-Length: {}\r\n\r\n", answer.len());
                stream.write_all(format!("{head}{answer}").as_bytes()).await.unwrap();
                sizes.push(jobs.len());
                received.clear();
            }
            sizes
        });
        let payloads: Vec<String> = (0..100).map(|number| payload(number, 100)).collect();
        let tasks: Vec<Task<'_>> = payloads.iter().map(|payload| Task { payload, key: None }).collect();
        let mut connection = Connection { http: Http::connect(address).await.unwrap() };
        connection.submit_many("bench", &tasks).await.unwrap();
        drop(connection);
        assert_eq!(server.await.unwrap(), [64, 36]);
    }
}
