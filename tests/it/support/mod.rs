//! Test support: each test has its own server on its own Redis.

pub mod contract;
pub mod event_stream;
pub mod exposition;
pub mod http;
pub mod poll;
pub mod ports;
pub mod proxy;
pub mod queue_simulation;
pub mod raw_client;
pub mod records;
pub mod redis;
pub mod script_lab;

use std::process::{Command, Output};
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::Duration;

use serde_json::{Value, json};
use slotwheel::config::{Config, RawConfig};
use slotwheel::store::dataset::identity;
use slotwheel::store::redis::config::RedisConfig;
use slotwheel::store::{Client, Store, audit};
use tokio::net::TcpListener;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

pub use http::{Answer, Http};
use redis::{Flavour, OwnRedis};

/// Checks every script of a run with `SLOTWHEEL_TEST_ON=shim`; precedes its text.
pub const SHIM: &str = include_str!("shim.lua");

/// A server and its Redis. Every test ends with [`Fixture::end`], which audits the store.
pub struct Fixture {
    pub redis: OwnRedis,
    pub http: Http,
    pub config: Config,
    offset: Arc<AtomicI64>,
    servers: Vec<Server>,
    ended: bool,
}

struct Server {
    stop: CancellationToken,
    running: JoinHandle<anyhow::Result<()>>,
}

impl Fixture {
    /// Starts a server with the default number of shards of this run.
    pub async fn start() -> Self {
        Self::with(|_| {}).await
    }

    /// Starts a server with this number of shards.
    pub async fn with_shards(shards: u16) -> Self {
        Self::with(|written| written.shards = Some(shards)).await
    }

    pub async fn with(change: impl FnOnce(&mut RawConfig)) -> Self {
        let redis = OwnRedis::start().await;
        let url = redis.url.clone();
        Self::on(redis, url, change).await
    }

    /// Starts a server on `redis`, which it connects to by `url`.
    pub async fn on(redis: OwnRedis, url: String, change: impl FnOnce(&mut RawConfig)) -> Self {
        let flavour = Flavour::of_this_run();
        let mut written = RawConfig {
            listen: Some("127.0.0.1:0".into()),
            redis_url: Some(url),
            shards: Some(if flavour == Flavour::Cluster { 16 } else { 1 }),
            // A short poll interval, so that no test waits long for a task after a lost wake-up.
            poll_interval_ms: Some(150),
            ..RawConfig::default()
        };
        change(&mut written);
        let mut config = written.resolve().expect("settings");
        if flavour == Flavour::Shim {
            config.test_hooks.injected_lua = SHIM.into();
        }
        let offset = config.test_hooks.clock_offset.clone();
        let (server, http) = Server::start(&config).await;
        Fixture { redis, http, config, offset, servers: vec![server], ended: false }
    }

    /// Starts another server on the same Redis.
    pub async fn another_server(&mut self) -> Http {
        let (server, http) = Server::start(&self.config).await;
        self.servers.push(server);
        http
    }

    /// Advances Redis' clock, as scripts see it.
    pub fn advance(&self, ms: i64) {
        self.offset.fetch_add(ms, Ordering::Relaxed);
    }

    /// Opens the store directly, without the server.
    pub async fn store(&self) -> Store {
        self.store_at(&self.redis.url).await
    }

    /// The same, by another URL of Redis.
    pub async fn store_at(&self, url: &str) -> Store {
        self.store_with(url, &self.config.test_hooks.injected_lua).await
    }

    /// The same, with other Lua in front of its scripts.
    pub async fn store_with(&self, url: &str, injected_lua: &str) -> Store {
        let target = RedisConfig {
            url: url.to_owned(),
            clock_offset: self.offset.clone(),
            injected_lua: injected_lua.to_owned(),
            ..RedisConfig::default()
        };
        let client = Client::connect(target, slotwheel::store::ops::ALL).await.expect("a direct connection");
        let founded = identity::load(&client, &self.config.prefix).await.expect("meta").expect("a data set");
        Store::new(Arc::new(client), founded.shards, &founded.id, &self.config.prefix)
    }

    /// Stops the last started server, like SIGTERM.
    pub async fn stop_last_server(&mut self) {
        let server = self.servers.pop().expect("a server");
        server.stop.cancel();
        server.running.await.expect("no panic").expect("a clean end");
    }

    /// Begins to stop the servers, like SIGTERM, without waiting.
    pub fn tell_to_stop(&self) {
        self.servers.iter().for_each(|server| server.stop.cancel());
    }

    /// Stops the servers, like SIGTERM, and waits for their end.
    pub async fn stop_servers(&mut self) {
        self.tell_to_stop();
        while !self.servers.is_empty() {
            self.stop_last_server().await;
        }
    }

    /// Stops the servers and Redis. Panics if the audit has a finding.
    pub async fn end(mut self) {
        self.ended = true;
        self.stop_servers().await;
        let report = audit::audit(&self.store().await).await.expect("an audit");
        assert!(report.findings.is_empty(), "the audit finds {:#?}", report.findings);
        self.redis.stop().await;
    }

    /// Submits a task to `queue` and returns it.
    pub async fn submit(&self, queue: &str, payload: Value) -> Value {
        self.submit_with(json!({"queue": queue, "payload": payload})).await
    }

    pub async fn submit_with(&self, body: Value) -> Value {
        self.http.post("/tasks", &body).await.expect(201)
    }

    /// Claims one task of `queue`; panics if there is none within 10 s.
    pub async fn claim_one(&self, queue: &str) -> Value {
        let body = json!({"queues": [queue], "wait_ms": 10_000, "worker": "w"});
        let tasks = self.http.post("/claim", &body).await.expect(200);
        tasks["tasks"].as_array().expect("tasks").first().expect("a task").clone()
    }

    /// Claims without waiting.
    pub async fn claim_now(&self, queue: &str, max: u32) -> Vec<Value> {
        let body = json!({"queues": [queue], "max": max});
        let answer = self.http.post("/claim", &body).await.expect(200);
        answer["tasks"].as_array().expect("tasks").clone()
    }

    pub async fn task(&self, id: &Value) -> Value {
        self.http.get(&format!("/tasks/{}", text(id))).await.expect(200)
    }

    pub async fn counts(&self, queue: &str) -> Value {
        self.http.get(&format!("/queues/{queue}")).await.expect(200)["counts"].clone()
    }

    /// Waits until the task is not leased. Its retry may be due at once, by jitter, so it need not be seen scheduled.
    pub async fn until_lease_ends(&self, id: &Value) -> Value {
        self.until_task(id, |task| task["state"] != "leased").await
    }

    /// Waits until the task is in `state`, for example by upkeep.
    pub async fn until_state(&self, id: &Value, state: &str) -> Value {
        self.until_task(id, |task| task["state"] == state).await
    }

    async fn until_task(&self, id: &Value, is_reached: impl Fn(&Value) -> bool) -> Value {
        self.until(|| async { Some(self.task(id).await).filter(&is_reached) }).await
    }

    /// Returns the first result of `check`, which is called again until it has one. Upkeep sends no signal to tests.
    pub async fn until<T, F: Future<Output = Option<T>>>(&self, check: impl Fn() -> F) -> T {
        poll::poll(Duration::from_secs(60), check).await.expect("a result within 60 s")
    }
}

impl Drop for Fixture {
    fn drop(&mut self) {
        assert!(self.ended || std::thread::panicking(), "a test must end its fixture");
    }
}

impl Server {
    async fn start(config: &Config) -> (Self, Http) {
        let listener = TcpListener::bind(config.listen).await.expect("a port");
        let address = listener.local_addr().expect("an address");
        let stop = CancellationToken::new();
        let running = tokio::spawn(slotwheel::app::run(config.clone(), listener, stop.clone()));
        let http = Http::new(address);
        let mut server = Server { stop, running };
        let ready = async {
            while !http.is_ready().await {
                if server.running.is_finished() {
                    panic!("the server did not start: {:?}", (&mut server.running).await);
                }
            }
        };
        tokio::time::timeout(Duration::from_secs(30), ready).await.expect("a server within 30 s");
        (server, http)
    }
}

/// Runs a program to its end, while the servers of this process go on: they touch the clock, and so have no outage.
pub async fn output(mut command: Command) -> Output {
    let ended = tokio::task::spawn_blocking(move || command.output()).await;
    ended.expect("no panic").expect("the program")
}

pub fn text(value: &Value) -> &str {
    value.as_str().expect("a string")
}

/// The body of a report: id and lease of a claimed task.
pub fn report(task: &Value) -> Value {
    json!({"id": task["id"], "lease": task["lease"]})
}

/// The body of a report with more fields.
pub fn report_with(task: &Value, more: Value) -> Value {
    let mut body = report(task);
    for (name, value) in more.as_object().expect("an object") {
        body[name] = value.clone();
    }
    body
}
