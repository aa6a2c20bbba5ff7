//! Connections to Redis: one shared, multiplexed connection (or a Cluster's), replaced when it breaks.
//!
//! The pool makes connections and checks them; calls share a clone of one. Nothing that blocks is ever sent on it.

use std::sync::atomic::{AtomicI64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use deadpool_redis::redis::aio::{ConnectionLike, MultiplexedConnection};
use deadpool_redis::redis::cluster::ClusterClientBuilder;
use deadpool_redis::redis::cluster_async::ClusterConnection;
use deadpool_redis::redis::cluster_routing::{
    MultipleNodeRoutingInfo, Route, RoutingInfo, SingleNodeRoutingInfo, SlotAddr,
};
use deadpool_redis::redis::io::tcp::TcpSettings;
use deadpool_redis::redis::io::tcp::socket2::TcpKeepalive;
use deadpool_redis::redis::{
    self, Arg, AsyncConnectionConfig, Cmd, ConnectionInfo, IntoConnectionInfo, Pipeline, RedisError, ServerErrorKind,
    TlsCertificates, Value, cmd,
};
use deadpool_redis::{Manager, Pool, Runtime, Timeouts};
use rand::RngExt as _;
use tokio::time::{Instant, sleep, timeout_at};

use super::reply::decode_msgpack;
use super::script::{Script, Scripts};
use crate::domain::slot::Slot;
use crate::metrics::{Histogram, HistogramSnapshot, LATENCY_BUCKETS};
use crate::store::error::{Error, Result};
use crate::store::metrics::Metrics;

const CONNECT_TIMEOUT: Duration = Duration::from_secs(2);
/// The longest that one command may take; a script's work is bounded far below it.
const RESPONSE_TIMEOUT: Duration = Duration::from_secs(3);

/// The deadline of every call: for how long something is sent again before its outcome is reported as unknown.
const CALL_DEADLINE: Duration = Duration::from_secs(4);
/// Between two sendings, at first and at most; half of it is chance, so that servers do not come back in step.
const INITIAL_RETRY_DELAY: Duration = Duration::from_millis(20);
const MAX_RETRY_DELAY: Duration = Duration::from_millis(200);

/// What moves a test's time: added to Redis' clock, in ms.
pub type ClockOffset = Arc<AtomicI64>;

/// Where Redis is, and how to speak to it.
#[derive(Clone, Debug, Default)]
pub struct RedisConfig {
    /// `redis://`, `rediss://`, `redis+unix://` or `unix://`, with user, password and database.
    pub url: String,
    /// Certificates that a server's must descend from, PEM; none: the system's.
    pub ca_certificates: Option<Vec<u8>>,
    /// Added to Redis' clock by every script. Zero but in tests.
    pub clock_offset: ClockOffset,
    /// Put before every script. Empty but in tests.
    pub injected_lua: String,
}

impl RedisConfig {
    fn connection_info(&self) -> std::result::Result<ConnectionInfo, RedisError> {
        let url = self.url.as_str();
        let info = match &self.ca_certificates {
            Some(pem) => {
                let certificates = TlsCertificates { client_tls: None, root_cert: Some(pem.clone()) };
                redis::Client::build_with_tls(url, certificates)?.get_connection_info().clone()
            }
            None => url.into_connection_info()?,
        };
        Ok(info.set_tcp_settings(tcp_settings()))
    }

    /// The client for this target.
    pub(in crate::store) fn open_client(&self) -> Result<redis::Client> {
        Ok(redis::Client::open(self.connection_info()?)?)
    }
}

enum Connection {
    Single { pool: Pool, shared: Mutex<Option<MultiplexedConnection>> },
    Cluster(ClusterConnection),
}

/// A Redis, or a Redis Cluster.
pub struct Client {
    connection: Connection,
    scripts: Scripts,
    config: RedisConfig,
    /// How long calls of no script took.
    command_latency: Histogram,
    metrics: Metrics,
}

impl std::fmt::Debug for Client {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Client")
    }
}

impl Client {
    /// Connects, and finds out whether it is a Cluster.
    pub async fn connect(config: RedisConfig) -> Result<Self> {
        let connection_config = AsyncConnectionConfig::new()
            .set_connection_timeout(Some(CONNECT_TIMEOUT))
            .set_response_timeout(Some(RESPONSE_TIMEOUT));
        let manager = Manager::new_with_config(config.connection_info()?, connection_config)?;
        let timeouts =
            Timeouts { wait: Some(CONNECT_TIMEOUT), create: Some(CONNECT_TIMEOUT), recycle: Some(CONNECT_TIMEOUT) };
        let pool = Pool::builder(manager)
            .max_size(2)
            .timeouts(timeouts)
            .runtime(Runtime::Tokio1)
            .build()
            .map_err(|error| Error::Unexpected(error.to_string()))?;
        let scripts = Scripts::new(&config.injected_lua);
        let connection = Connection::Single { pool, shared: Mutex::new(None) };
        let command_latency = Histogram::new(&LATENCY_BUCKETS);
        let single = Client { connection, scripts, config, command_latency, metrics: Metrics::default() };
        let info: String = redis::from_redis_value(single.send(cmd("INFO").arg("cluster")).await?)
            .map_err(|error| Error::Unexpected(error.to_string()))?;
        if !info.contains("cluster_enabled:1") {
            return Ok(single);
        }
        let cluster = single.cluster_builder()?.build()?.get_async_connection().await?;
        Ok(Client { connection: Connection::Cluster(cluster), ..single })
    }

    /// Whether every master works: one that loads its data answers little else than that.
    pub async fn ping(&self) -> Result<()> {
        self.send_to_masters(&cmd("PING")).await.map(drop)
    }

    /// How a Cluster's client is made, for commands and for signals alike.
    pub(in crate::store) fn cluster_builder(&self) -> Result<ClusterClientBuilder> {
        let info = self.config.connection_info()?;
        let mut builder = ClusterClientBuilder::new(vec![info])
            .connection_timeout(CONNECT_TIMEOUT)
            .response_timeout(RESPONSE_TIMEOUT)
            .retries(1)
            .tcp_settings(tcp_settings());
        if let Some(pem) = &self.config.ca_certificates {
            builder = builder.certs(TlsCertificates { client_tls: None, root_cert: Some(pem.clone()) });
        }
        Ok(builder)
    }

    /// Whether it is a Cluster.
    pub fn is_cluster(&self) -> bool {
        matches!(self.connection, Connection::Cluster(_))
    }

    /// What was done over it.
    pub fn metrics(&self) -> &Metrics {
        &self.metrics
    }

    /// How long calls took, by script; `command`: those of none.
    pub fn call_durations(&self) -> Vec<(&'static str, HistogramSnapshot)> {
        let scripts = crate::store::ops::ALL.iter().filter_map(|script| {
            let loaded = self.scripts.get(script)?;
            Some((script.name, loaded.latency.read()))
        });
        scripts.chain([("command", self.command_latency.read())]).collect()
    }

    /// Takes note of how long a call took that began then, and of how it failed if it did.
    fn record_call<T>(&self, latency: &Histogram, started: Instant, outcome: &Result<T>) {
        latency.observe_duration(started.elapsed());
        if let Err(error) = outcome {
            self.metrics.errors.record(error);
        }
    }

    pub(in crate::store) fn config(&self) -> &RedisConfig {
        &self.config
    }

    /// ms to add to Redis' clock, as scripts take it: empty for none.
    pub(in crate::store) fn clock_offset_ms(&self) -> String {
        match self.config.clock_offset.load(Ordering::Relaxed) {
            0 => String::new(),
            ms => ms.to_string(),
        }
    }

    async fn pooled_connection(
        pool: &Pool,
        shared: &Mutex<Option<MultiplexedConnection>>,
    ) -> Result<MultiplexedConnection> {
        if let Some(connection) = shared.lock().unwrap_or_else(PoisonError::into_inner).as_ref() {
            return Ok(connection.clone());
        }
        let pooled = pool.get().await.map_err(|error| Error::Unavailable(error.to_string()))?;
        let connection: MultiplexedConnection = (*pooled).clone();
        *shared.lock().unwrap_or_else(PoisonError::into_inner) = Some(connection.clone());
        Ok(connection)
    }

    /// A clone that reports such an error never heals by itself; one that leads to a replica would be asked to write
    /// for ever.
    fn on_error(&self, error: RedisError) -> Error {
        let read_only = error.kind() == ServerErrorKind::ReadOnly.into();
        if error.is_unrecoverable_error() || error.is_timeout() || read_only {
            self.discard();
        }
        error.into()
    }

    /// The next call makes another connection.
    fn discard(&self) {
        if let Connection::Single { pool, shared } = &self.connection {
            pool.retain(|_, _| false);
            *shared.lock().unwrap_or_else(PoisonError::into_inner) = None;
        }
    }

    /// Sends a command to every master; each one's answer.
    pub(in crate::store) async fn send_to_masters(&self, command: &Cmd) -> Result<Vec<Value>> {
        match &self.connection {
            Connection::Single { .. } => Ok(vec![self.send(command).await?]),
            Connection::Cluster(connection) => {
                let route = RoutingInfo::MultiNode((MultipleNodeRoutingInfo::AllMasters, None));
                let sent = connection.clone().route_command(command.clone(), route).await;
                match sent.and_then(Value::extract_error).map_err(|error| self.on_error(error))? {
                    Value::Map(answers) => Ok(answers.into_iter().map(|(_node, answer)| answer).collect()),
                    answer => Ok(vec![answer]),
                }
            }
        }
    }

    /// Does it again while Redis is away, up to [`PATIENCE`]. All that is sent may be sent twice: it reads, it sets
    /// what is not set, or it is a script that knows the number of its call.
    async fn with_retries<T, F: Future<Output = Result<T>>>(&self, attempt: impl Fn() -> F) -> Result<T> {
        let deadline = Instant::now() + CALL_DEADLINE;
        let mut delay = INITIAL_RETRY_DELAY;
        let mut last_error = format!("no answer within {} s", CALL_DEADLINE.as_secs());
        loop {
            last_error = match timeout_at(deadline, attempt()).await {
                Ok(Err(Error::Unavailable(why))) => why,
                // It refuses now; whether an earlier sending ran is not known.
                Ok(Err(Error::Full(why) | Error::Disk(why))) if delay > INITIAL_RETRY_DELAY => {
                    return Err(Error::Unavailable(why));
                }
                Ok(outcome) => return outcome,
                Err(_) => {
                    self.discard();
                    return Err(Error::Unavailable(last_error));
                }
            };
            let jittered_delay = delay.mul_f64(rand::rng().random_range(0.5..1.0));
            if Instant::now() + jittered_delay >= deadline {
                return Err(Error::Unavailable(last_error));
            }
            tracing::debug!(why = last_error, "sending to Redis again");
            self.metrics.retries.inc();
            sleep(jittered_delay).await;
            delay = (delay * 2).min(MAX_RETRY_DELAY);
        }
    }

    /// Sends one command.
    pub async fn send(&self, command: &Cmd) -> Result<Value> {
        let started = Instant::now();
        let attempt = || async { self.try_send(command).await.map_err(|error| self.on_error(error)) };
        let outcome = self.with_retries(attempt).await;
        self.record_call(&self.command_latency, started, &outcome);
        outcome
    }

    async fn try_send(&self, command: &Cmd) -> std::result::Result<Value, RedisError> {
        match &self.connection {
            Connection::Single { pool, shared } => {
                let mut connection = Self::pooled_connection(pool, shared).await.map_err(connection_error)?;
                connection.req_packed_command(command).await.and_then(Value::extract_error)
            }
            Connection::Cluster(connection) => {
                connection.clone().req_packed_command(command).await.and_then(Value::extract_error)
            }
        }
    }

    /// Sends a command that names no key to the node that holds `key`.
    pub(in crate::store) async fn send_to_node_of(&self, key: &str, command: &Cmd) -> Result<Value> {
        match &self.connection {
            Connection::Single { .. } => self.send(command).await,
            Connection::Cluster(connection) => {
                let slot = Slot::of_key(key.as_bytes()).number();
                let route = SingleNodeRoutingInfo::SpecificNode(Route::new(slot, SlotAddr::Master));
                let sent = connection.clone().route_command(command.clone(), RoutingInfo::SingleNode(route)).await;
                sent.and_then(Value::extract_error).map_err(|error| self.on_error(error))
            }
        }
    }

    /// Sends commands together; on a Cluster all keys lie in one slot. One answer for each.
    pub async fn send_pipeline(&self, pipeline: &Pipeline) -> Result<Vec<Value>> {
        let started = Instant::now();
        let outcome = self.with_retries(|| self.try_send_pipeline(pipeline)).await;
        self.record_call(&self.command_latency, started, &outcome);
        outcome
    }

    async fn try_send_pipeline(&self, pipeline: &Pipeline) -> Result<Vec<Value>> {
        let count = pipeline.len();
        let sent = match &self.connection {
            Connection::Single { pool, shared } => {
                let mut connection = Self::pooled_connection(pool, shared).await?;
                connection.req_packed_commands(pipeline, 0, count).await
            }
            Connection::Cluster(connection) => connection.clone().req_packed_commands(pipeline, 0, count).await,
        };
        let answers = sent.and_then(|answers| answers.into_iter().map(Value::extract_error).collect());
        answers.map_err(|error| self.on_error(error))
    }

    /// A call of the script, for [`Client::run`], to which keys and arguments are to be added.
    ///
    /// The second key never exists. While a Cluster moves a shard's slot, a call that names a key which is there and
    /// one which is not is refused by both nodes before it runs; with one key it would run on the node to which just
    /// that key has moved, and find all the others missing.
    pub(in crate::store) fn evalsha(&self, script: &Script, keys: [Vec<u8>; 2]) -> Cmd {
        let mut command = cmd("EVALSHA");
        command.arg(self.scripts.get(script).map_or("", |loaded| &loaded.sha)).arg(2).arg(&keys);
        command
    }

    /// Runs a script by its call; loads it where Redis does not know it.
    pub(in crate::store) async fn run_script(&self, script: &Script, command: &Cmd) -> Result<Value> {
        let unknown_script = || Error::Unexpected(format!("script {} is not in the list", script.name));
        let loaded = self.scripts.get(script).ok_or_else(unknown_script)?;
        let started = Instant::now();
        let attempt = || async {
            let answer = match self.try_send(command).await {
                Err(error) if error.kind() == ServerErrorKind::NoScript.into() => {
                    let mut eval = cmd("EVAL");
                    eval.arg(&loaded.text);
                    for argument in command.args_iter().skip(2) {
                        if let Arg::Simple(argument) = argument {
                            eval.arg(argument);
                        }
                    }
                    self.try_send(&eval).await
                }
                other => other,
            };
            answer.map_err(|error| self.on_error(error))
        };
        let outcome = self.with_retries(attempt).await.and_then(decode_msgpack);
        self.record_call(&loaded.latency, started, &outcome);
        outcome
    }
}

/// Whoever only hears never learns otherwise that the other side has gone without a word.
fn tcp_settings() -> TcpSettings {
    let keepalive =
        TcpKeepalive::new().with_time(Duration::from_secs(5)).with_interval(Duration::from_secs(2)).with_retries(3);
    TcpSettings::default().set_nodelay(true).set_keepalive(keepalive)
}

fn connection_error(error: Error) -> RedisError {
    RedisError::from((redis::ErrorKind::Io, "no connection", error.to_string()))
}
