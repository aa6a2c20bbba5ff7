//! A server of one's own, on a Redis of one's own.

pub mod contract;
pub mod event_stream;
pub mod exposition;
pub mod http;
pub mod poll;
pub mod proxy;
pub mod queue_simulation;
pub mod raw_client;
pub mod redis;
pub mod script_lab;

use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::Duration;

use serde_json::{Value, json};
use slotwheel::config::{Config, RawConfig};
use slotwheel::store::dataset::identity;
use slotwheel::store::redis::client::RedisConfig;
use slotwheel::store::{Client, Store, audit};
use tokio::net::TcpListener;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

pub use http::{Answer, Http};
use redis::{Flavour, OwnRedis};

/// Put before every script of a run under the shim.
pub const SHIM: &str = include_str!("shim.lua");

/// A server and its Redis. Every test ends with [`Fixture::end`], which audits what it left behind.
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
    /// With the shards that the run asks for.
    pub async fn start() -> Self {
        Self::with(|_| {}).await
    }

    /// With as many shards as the test needs.
    pub async fn with_shards(shards: u16) -> Self {
        Self::with(|written| written.shards = Some(shards)).await
    }

    pub async fn with(change: impl FnOnce(&mut RawConfig)) -> Self {
        let redis = OwnRedis::start().await;
        let url = redis.url.clone();
        Self::on(redis, url, change).await
    }

    /// On `redis`, reached through `url`.
    pub async fn on(redis: OwnRedis, url: String, change: impl FnOnce(&mut RawConfig)) -> Self {
        let flavour = Flavour::of_this_run();
        let mut written = RawConfig {
            listen: Some("127.0.0.1:0".into()),
            redis_url: Some(url),
            shards: Some(if flavour == Flavour::Cluster { 16 } else { 1 }),
            // The truth is looked for often, so that no test waits long for what a signal missed.
            poll_interval_ms: Some(150),
            ..RawConfig::default()
        };
        change(&mut written);
        let mut config = written.resolve().expect("settings");
        if flavour == Flavour::Shim {
            config.test_hooks.script_prefix = SHIM.into();
        }
        let offset = config.test_hooks.time_offset.clone();
        let (server, http) = Server::start(&config).await;
        Fixture { redis, http, config, offset, servers: vec![server], ended: false }
    }

    /// Another server on the same Redis.
    pub async fn another_server(&mut self) -> Http {
        let (server, http) = Server::start(&self.config).await;
        self.servers.push(server);
        http
    }

    /// Moves Redis' clock, as scripts see it.
    pub fn advance(&self, ms: i64) {
        self.offset.fetch_add(ms, Ordering::Relaxed);
    }

    /// The store, seen past the server.
    pub async fn store(&self) -> Store {
        self.store_at(&self.redis.url).await
    }

    /// The same, on another way to Redis.
    pub async fn store_at(&self, url: &str) -> Store {
        let prelude = self.config.test_hooks.script_prefix.clone();
        let target = RedisConfig {
            url: url.to_owned(),
            clock_offset: self.offset.clone(),
            injected_lua: prelude,
            ..RedisConfig::default()
        };
        let client = Client::connect(target).await.expect("a connection past the server");
        let founded = identity::load(&client, &self.config.prefix).await.expect("meta").expect("a data set");
        Store::new(Arc::new(client), founded.shards, &self.config.prefix)
    }

    /// Stops the server that was started last, as a signal would.
    pub async fn stop_last_server(&mut self) {
        let server = self.servers.pop().expect("a server");
        server.stop.cancel();
        server.running.await.expect("no panic").expect("an orderly end");
    }

    /// Tells the servers to stop, as a signal would, and does not wait for it.
    pub fn tell_to_stop(&self) {
        self.servers.iter().for_each(|server| server.stop.cancel());
    }

    /// Stops the servers as a signal would.
    pub async fn stop_servers(&mut self) {
        self.tell_to_stop();
        while !self.servers.is_empty() {
            self.stop_last_server().await;
        }
    }

    /// Everything that the server began has settled, and the store is as it must be.
    pub async fn end(mut self) {
        self.ended = true;
        self.stop_servers().await;
        let report = audit::audit(&self.store().await).await.expect("an audit");
        assert!(report.findings.is_empty(), "the audit finds {:#?}", report.findings);
        self.redis.stop().await;
    }

    /// Submits a task to `queue` and answers it.
    pub async fn submit(&self, queue: &str, payload: Value) -> Value {
        self.submit_with(json!({"queue": queue, "payload": payload})).await
    }

    pub async fn submit_with(&self, body: Value) -> Value {
        self.http.post("/tasks", &body).await.expect(201)
    }

    /// Claims one task of `queue`, which must be there.
    pub async fn claim_one(&self, queue: &str) -> Value {
        let body = json!({"queues": [queue], "wait_ms": 10_000, "worker": "w"});
        let tasks = self.http.post("/claim", &body).await.expect(200);
        tasks["tasks"].as_array().expect("tasks").first().expect("a task").clone()
    }

    /// What a claim that does not wait gets.
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

    /// Returns when the task is in `state`; upkeep may have to get there first.
    pub async fn until_state(&self, id: &Value, state: &str) -> Value {
        self.until(|| async {
            let task = self.task(id).await;
            (task["state"] == state).then_some(task)
        })
        .await
    }

    /// Returns the first result of `check`, which is called again until it has one. Upkeep sends no signal to tests.
    pub async fn until<T, F: Future<Output = Option<T>>>(&self, check: impl Fn() -> F) -> T {
        poll::poll(Duration::from_secs(20), check).await.expect("a result within 20 s")
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

pub fn text(value: &Value) -> &str {
    value.as_str().expect("a string")
}

/// The id and lease of a claimed task, as a report's body.
pub fn report(task: &Value) -> Value {
    json!({"id": task["id"], "lease": task["lease"]})
}

/// A report's body with more fields.
pub fn report_with(task: &Value, more: Value) -> Value {
    let mut body = report(task);
    for (name, value) in more.as_object().expect("an object") {
        body[name] = value.clone();
    }
    body
}
