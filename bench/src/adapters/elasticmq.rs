//! ElasticMQ: a server of Amazon's SQS over HTTP. It keeps messages in memory alone: no Redis, no disk. Batches may be
//! larger than ten, unlike in SQS (`sqs-limits = relaxed`). It has two threads for its actors, one per processor here:
//! eight, Pekko's default minimum, cost far more per message. Java's garbage collector is the throughput collector. A
//! warm-up before the measurement lets Java compile.
//!
//! A waiting receive outlives its closed connection: a message that arrives then is delivered to no client, and is
//! hidden for its visibility timeout. So a round begins when no receive of the previous round is left.

use std::cell::Cell;
use std::net::SocketAddr;
use std::process::Command;
use std::rc::Rc;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};
use futures_util::future::try_join_all;
use memchr::memmem;
use serde_json::Value;

use super::installed::installed;
use super::{Adapter, Capability, Client, Numbered, Role, Settings, Task};
use crate::http::{Http, between};
use crate::ledger::payload;
use crate::processes::{Directory, Process, free_port};

const CONFIGURATION: &str = r#"
include classpath("application.conf")
generate-node-address = true
rest-sqs { bind-hostname = "127.0.0.1", bind-port = PORT, sqs-limits = relaxed }
pekko.loglevel = "WARNING"
pekko.actor.default-dispatcher.fork-join-executor { parallelism-min = 2, parallelism-max = 2 }
"#;

const LOG: &str = r#"<configuration>
  <appender name="all" class="ch.qos.logback.core.ConsoleAppender"><encoder><pattern>%msg%n</pattern></encoder></appender>
  <root level="WARN"><appender-ref ref="all"/></root>
</configuration>"#;

/// A server.
pub struct Elasticmq {
    server: Process,
    address: SocketAddr,
    version: String,
    receives: Rc<Receives>,
    _directory: Directory,
}

/// Waiting receives of all connections.
#[derive(Default)]
struct Receives {
    unanswered: Cell<usize>,
    /// Latest time of the last reply.
    until: Cell<Option<Instant>>,
}

impl Adapter for Elasticmq {
    const CAPABILITIES: &[Capability] = &[Capability::Many];
    type Client = Connection;

    async fn start(settings: &Settings) -> Result<Self> {
        let peer = installed(settings, "elasticmq")?;
        let directory = Directory::fresh(settings, "elasticmq")?;
        let address = SocketAddr::from(([127, 0, 0, 1], free_port()?));
        let configuration = CONFIGURATION.replace("PORT", &address.port().to_string());
        std::fs::write(directory.path().join("elasticmq.conf"), configuration)?;
        let log = directory.path().join("log.xml");
        std::fs::write(&log, LOG)?;
        let mut command = Command::new("java");
        command.args(["-XX:+UseParallelGC", "-Xms1g", "-Xmx6g", "-Dconfig.file=elasticmq.conf"]);
        command.arg(format!("-Dlogback.configurationFile={}", log.display()));
        command.arg("-cp").arg(peer.directory.join("*")).arg("org.elasticmq.server.Main");
        let mut server = Process::start(command, directory.path())?;
        server.until(async || Http::connect(address).await.is_ok()).await.context("elasticmq")?;
        let system = Self { server, address, version: peer.version, receives: Rc::default(), _directory: directory };
        system.warm_up().await.context("elasticmq's warm-up")?;
        Ok(system)
    }

    fn version(&self) -> String {
        format!(
            "{}, in memory, sqs-limits relaxed, 2 dispatcher threads, -XX:+UseParallelGC, log level WARN",
            self.version
        )
    }

    fn processes(&self) -> Vec<(Role, u32)> {
        vec![(Role::Server, self.server.pid())]
    }

    async fn prepare(&self, queue: &str) -> Result<()> {
        // Their clients have disconnected.
        if self.receives.unanswered.take() > 0 {
            let until = self.receives.until.take().context("when they end")?;
            tokio::time::sleep_until(until.into()).await;
        }
        let mut client = self.connect().await?;
        client.put(&["{\"QueueName\":\"", queue, "\",\"Attributes\":{\"VisibilityTimeout\":\"600\"}}"]);
        client.ask(CREATE).await?;
        Ok(())
    }

    async fn connect(&self) -> Result<Connection> {
        let http = Http::connect(self.address).await?;
        Ok(Connection { http, body: Vec::new(), receives: Rc::clone(&self.receives) })
    }

    async fn left(&self, queue: &str) -> Result<Option<u64>> {
        let mut client = self.connect().await?;
        client.put_queue(queue);
        client.put(&[",\"AttributeNames\":[\"All\"]}"]);
        let answer: Value = serde_json::from_slice(client.ask(ATTRIBUTES).await?)?;
        let count = |name: &str| -> Result<u64> {
            Ok(answer["Attributes"][name].as_str().with_context(|| name.to_owned())?.parse()?)
        };
        Ok(Some(count("ApproximateNumberOfMessages")? + count("ApproximateNumberOfMessagesNotVisible")?))
    }
}

impl Elasticmq {
    /// Sixteen connections send enough for Java to compile the hot code.
    async fn warm_up(&self) -> Result<()> {
        const QUEUE: &str = "warm-up";
        self.prepare(QUEUE).await?;
        let task = payload(0, 100);
        let task = Task { payload: &task, key: None };
        try_join_all((0..16).map(async |_| {
            let mut client = self.connect().await?;
            for _ in 0..1000 {
                client.submit(QUEUE, task).await?;
                for job in client.take(QUEUE, 1, Duration::from_secs(1)).await? {
                    client.finish(QUEUE, &job).await?;
                }
            }
            anyhow::Ok(())
        }))
        .await?;
        Ok(())
    }
}

/// One connection to the server.
pub struct Connection {
    http: Http,
    body: Vec<u8>,
    receives: Rc<Receives>,
}

/// Content type, followed by a further header.
macro_rules! action {
    ($name:literal) => {
        concat!("application/x-amz-json-1.0\r\nx-amz-target: AmazonSQS.", $name)
    };
}
const CREATE: &str = action!("CreateQueue");
const SEND: &str = action!("SendMessage");
const SEND_MANY: &str = action!("SendMessageBatch");
const ATTRIBUTES: &str = action!("GetQueueAttributes");
const RECEIVE: &str = action!("ReceiveMessage");
const DELETE: &str = action!("DeleteMessage");
const DELETE_MANY: &str = action!("DeleteMessageBatch");

impl Connection {
    fn put(&mut self, parts: &[&str]) {
        parts.iter().for_each(|part| self.body.extend_from_slice(part.as_bytes()));
    }

    fn put_queue(&mut self, queue: &str) {
        self.put(&["{\"QueueUrl\":\"http://127.0.0.1/000000000000/", queue, "\""]);
    }

    /// Writes the payload as a JSON string: only quotes need escaping.
    fn put_text(&mut self, payload: &str) {
        self.put(&["\"MessageBody\":\""]);
        for byte in payload.bytes() {
            if byte == b'"' {
                self.body.push(b'\\');
            }
            self.body.push(byte);
        }
        self.put(&["\""]);
    }

    async fn ask(&mut self, action: &str) -> Result<&[u8]> {
        let body = std::mem::take(&mut self.body);
        let answer = self.http.send("POST", "/", action, &body).await?.expect(200)?;
        self.body = body;
        self.body.clear();
        Ok(answer)
    }

    /// Fails unless all entries of a batch succeeded.
    async fn ask_many(&mut self, action: &str, wanted: usize) -> Result<()> {
        let answer = self.ask(action).await?;
        let done = memmem::find_iter(answer, b"\"Id\":").count();
        if done != wanted || memmem::find(answer, b"\"SenderFault\"").is_some() {
            bail!("entries of a batch failed: {}", String::from_utf8_lossy(&answer[..answer.len().min(2000)]));
        }
        Ok(())
    }
}

/// A received message, by its receipt handle.
type Held = Numbered<String>;

impl Client for Connection {
    type Job = Held;

    async fn submit(&mut self, queue: &str, task: Task<'_>) -> Result<()> {
        self.put_queue(queue);
        self.put(&[","]);
        self.put_text(task.payload);
        self.put(&["}"]);
        self.ask(SEND).await?;
        Ok(())
    }

    async fn take(&mut self, queue: &str, max: usize, wait: Duration) -> Result<Vec<Held>> {
        self.put_queue(queue);
        let (max, seconds) = (max.to_string(), wait.as_secs().to_string());
        self.put(&[",\"MaxNumberOfMessages\":", &max, ",\"WaitTimeSeconds\":", &seconds, "}"]);
        let receives = Rc::clone(&self.receives);
        receives.unanswered.update(|count| count + 1);
        receives.until.set(Some(Instant::now() + wait + Duration::from_millis(500)));
        let mut answer = self.ask(RECEIVE).await?;
        receives.unanswered.update(|count| count - 1);
        let mut jobs = Vec::new();
        while let Some(at) = memmem::find(answer, b"{\"Body\":\"") {
            let (number, rest) = between(&answer[at..], b"\\\"n\\\":", b',').context("a message without a number")?;
            let number = std::str::from_utf8(number)?.parse()?;
            let (handle, rest) = between(rest, b"\"ReceiptHandle\":\"", b'"').context("a message without a handle")?;
            jobs.push(Held { number, id: std::str::from_utf8(handle)?.to_owned() });
            answer = rest;
        }
        Ok(jobs)
    }

    async fn finish(&mut self, queue: &str, job: &Held) -> Result<()> {
        self.put_queue(queue);
        self.put(&[",\"ReceiptHandle\":\"", &job.id, "\"}"]);
        self.ask(DELETE).await?;
        Ok(())
    }

    async fn submit_many(&mut self, queue: &str, tasks: &[Task<'_>]) -> Result<()> {
        self.put_queue(queue);
        for (place, task) in tasks.iter().enumerate() {
            self.put(&[if place == 0 { ",\"Entries\":[" } else { "," }, "{\"Id\":\"", &place.to_string(), "\","]);
            self.put_text(task.payload);
            self.put(&["}"]);
        }
        self.put(&["]}"]);
        self.ask_many(SEND_MANY, tasks.len()).await
    }

    async fn finish_many(&mut self, queue: &str, jobs: &[Held]) -> Result<()> {
        self.put_queue(queue);
        for (place, job) in jobs.iter().enumerate() {
            self.put(&[if place == 0 { ",\"Entries\":[" } else { "," }, "{\"Id\":\"", &place.to_string()]);
            self.put(&["\",\"ReceiptHandle\":\"", &job.id, "\"}"]);
        }
        self.put(&["]}"]);
        self.ask_many(DELETE_MANY, jobs.len()).await
    }
}
