//! The Redis client: sends commands, pipelines and scripts, and retries them while Redis is unavailable.
//!
//! Everything sent may arrive twice: it only reads, it sets what is not set, or it is a script that remembers the
//! number of its call.

use std::time::Duration;

use deadpool_redis::redis::{self, Arg, Cmd, Pipeline, RedisError, RedisResult, ServerErrorKind, Value, cmd};
use rand::RngExt as _;
use tokio::time::{Instant, sleep, timeout_at};

use super::config::RedisConfig;
use super::reply::{decode_msgpack, text};
use super::script::{Script, Scripts};
use super::topology::{Connection, Topology};
use crate::metrics::{Histogram, HistogramSnapshot, LATENCY_BUCKETS};
use crate::store::error::{Error, Result};
use crate::store::keys::{ChannelScope, Keys};
use crate::store::metrics::Metrics;

/// The time limit of every call, retries included. After it the outcome is reported as unknown.
pub(in crate::store) const CALL_DEADLINE: Duration = Duration::from_secs(4);
/// The pause before the first retry. Half of each pause is random, so that servers do not retry in step.
const INITIAL_RETRY_DELAY: Duration = Duration::from_millis(20);
/// The time to find out whether a Cluster rejects the password. A node that hangs must not delay the first retry for long.
const REJECTION_TIMEOUT: Duration = Duration::from_millis(500);
const MAX_RETRY_DELAY: Duration = Duration::from_millis(200);

/// Arguments and bytes of a call. A call for one task seldom has more, so its command need not grow.
const TYPICAL_ARGUMENTS: usize = 48;
const TYPICAL_BYTES: usize = 1024;

/// A client of one Redis or of a Redis Cluster.
pub struct Client {
    topology: Topology,
    scripts: Scripts,
    config: RedisConfig,
    /// Durations of calls that run no script.
    command_latency: Histogram,
    metrics: Metrics,
}

impl std::fmt::Debug for Client {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Client")
    }
}

impl Client {
    /// Connects, and detects whether Redis is a Cluster. The client runs the scripts in `scripts` and no others.
    pub async fn connect(config: RedisConfig, scripts: &[&'static Script]) -> Result<Self> {
        let client = Client {
            topology: Topology::single(config.clone())?,
            scripts: Scripts::new(scripts, &config.injected_lua),
            command_latency: Histogram::new(&LATENCY_BUCKETS),
            metrics: Metrics::default(),
            config,
        };
        // HELLO needs no permission.
        let hello = match client.send(&cmd("HELLO")).await {
            Err(Error::Unexpected(error)) => {
                return Err(Error::Unexpected(format!("{error}; Redis must have version 7.0 or later, or be Valkey")));
            }
            hello => hello?,
        };
        if hello_field(hello, "mode")? != "cluster" {
            return Ok(client);
        }
        let topology = Topology::cluster(client.config.clone()).await?;
        Ok(Client { topology, ..client })
    }

    /// Checks that every master answers. A master that is loading its data rejects the command.
    pub async fn ping(&self) -> Result<()> {
        self.send_to_masters(&cmd("PING")).await.map(drop)
    }

    /// Whether Redis is a Cluster.
    pub fn is_cluster(&self) -> bool {
        self.topology.is_cluster()
    }

    /// Returns the counters of this client.
    pub fn metrics(&self) -> &Metrics {
        &self.metrics
    }

    /// Returns the durations of calls by script name, with `command` for calls that run no script.
    pub fn call_durations(&self) -> Vec<(&'static str, HistogramSnapshot)> {
        let scripts = self.scripts.durations();
        scripts.chain([("command", self.command_latency.read())]).collect()
    }

    pub(super) fn topology(&self) -> &Topology {
        &self.topology
    }

    /// Returns the clock offset in ms, as scripts take it. Empty for zero.
    pub(in crate::store) fn clock_offset_ms(&self) -> String {
        self.config.clock_offset_ms()
    }

    /// Returns the same for a script that writes, behind a `*` if it must touch every key before its first write. A Cluster
    /// that moves the keys of a shard refuses the call at that point, and not half-way. Tests that inject Lua check that order.
    pub(in crate::store) fn write_offset_ms(&self) -> String {
        let prefix = if self.is_cluster() || !self.config.injected_lua.is_empty() { "*" } else { "" };
        format!("{prefix}{}", self.config.clock_offset_ms())
    }

    /// Records the duration of a call and, if it failed, the kind of its error.
    fn record_call<T>(&self, latency: &Histogram, started: Instant, outcome: &Result<T>) {
        latency.observe_duration(started.elapsed());
        if let Err(error) = outcome {
            self.metrics.errors.record(error);
        }
    }

    /// Discards the connection if it cannot recover: it is broken, leads to a replica, or has no user.
    fn on_error(&self, error: RedisError) -> Error {
        let is_read_only = error.kind() == ServerErrorKind::ReadOnly.into();
        let is_broken = error.is_unrecoverable_error() || error.is_timeout() || is_read_only;
        let error = Error::from(error);
        // A connection that lost its user authenticates again only as a new one.
        if is_broken || matches!(error, Error::Unauthenticated(_)) {
            self.topology.discard();
        }
        error
    }

    /// Repeats `attempt` while Redis is unavailable, until `deadline`.
    async fn with_retries<T, F>(&self, deadline: Instant, attempt: impl Fn(Connection) -> F) -> Result<T>
    where
        F: Future<Output = RedisResult<T>>,
    {
        let mut delay = INITIAL_RETRY_DELAY;
        let mut last_error = format!("no reply within {} s", CALL_DEADLINE.as_secs());
        let attempt = || async { attempt(self.topology.connection().await?).await };
        loop {
            last_error = match timeout_at(deadline, attempt()).await {
                Ok(outcome) => match outcome.map_err(|error| self.on_error(error)) {
                    Err(Error::Unavailable(why)) => {
                        let until = deadline.min(Instant::now() + REJECTION_TIMEOUT);
                        if delay == INITIAL_RETRY_DELAY
                            && let Ok(Some(rejection)) = timeout_at(until, Box::pin(self.topology.rejection())).await
                        {
                            return Err(rejection);
                        }
                        why
                    }
                    // Redis rejects the call now, but an earlier attempt may have run.
                    Err(Error::Full(why) | Error::Disk(why)) if delay > INITIAL_RETRY_DELAY => {
                        return Err(Error::Unavailable(why));
                    }
                    outcome => return outcome,
                },
                Err(_) => {
                    self.topology.discard();
                    return Err(Error::Unavailable(last_error));
                }
            };
            let jittered_delay = delay.mul_f64(rand::rng().random_range(0.5..1.0));
            if Instant::now() + jittered_delay >= deadline {
                return Err(Error::Unavailable(last_error));
            }
            tracing::debug!(error = last_error, "Redis call failed; retrying");
            self.metrics.counters.redis_retries.inc();
            sleep(jittered_delay).await;
            delay = (delay * 2).min(MAX_RETRY_DELAY);
        }
    }

    /// Sends one command with retries.
    pub async fn send(&self, command: &Cmd) -> Result<Value> {
        self.timed(|mut connection| async move { connection.send(command).await }).await
    }

    /// Sends a command to the master of `key`. Returns the text of Redis if the user lacks a permission for it.
    ///
    /// # Errors
    /// If Redis gives no reply. Any other error of the command means that the user may run it.
    pub(in crate::store) async fn denial(&self, key: &[u8], command: &Cmd) -> Result<Option<String>> {
        let send = |mut connection: Connection| async move { connection.send_to_master_of(key, command).await };
        match self.with_retries(Instant::now() + CALL_DEADLINE, send).await {
            Ok(_) | Err(Error::Unexpected(_) | Error::Full(_) | Error::Disk(_) | Error::Unconfirmed(_)) => Ok(None),
            Err(Error::Denied(text)) => Ok(Some(text)),
            Err(error) => Err(error),
        }
    }

    /// Returns the number of the database.
    pub(in crate::store) fn database(&self) -> i64 {
        // The settings have connected, so they are valid.
        self.config.connection_info().map_or(0, |info| info.redis_settings().db())
    }

    /// Whether the address of Redis has a password.
    pub(super) fn has_password(&self) -> bool {
        self.config.connection_info().is_ok_and(|info| info.redis_settings().password().is_some())
    }

    /// Sends a command that names no key to the master of `key`.
    pub(in crate::store) async fn send_to_master_of(&self, key: &str, command: &Cmd) -> Result<Value> {
        self.timed(|mut connection| async move { connection.send_to_master_of(key.as_bytes(), command).await }).await
    }

    /// Sends a command to every master and returns one reply for each.
    pub(super) async fn send_to_masters(&self, command: &Cmd) -> Result<Vec<Value>> {
        self.timed(|mut connection| async move { connection.send_to_masters(command).await }).await
    }

    /// Sends commands together and returns one reply for each. On a Cluster all keys must lie in one Redis slot.
    pub async fn send_pipeline(&self, pipeline: &Pipeline) -> Result<Vec<Value>> {
        self.timed(|mut connection| async move { connection.send_pipeline(pipeline).await }).await
    }

    async fn timed<T, F>(&self, attempt: impl Fn(Connection) -> F) -> Result<T>
    where
        F: Future<Output = RedisResult<T>>,
    {
        let started = Instant::now();
        let outcome = self.with_retries(started + CALL_DEADLINE, attempt).await;
        self.record_call(&self.command_latency, started, &outcome);
        outcome
    }

    /// Returns a call of the script in a shard for [`Client::run_script`]. The caller appends the arguments behind the
    /// base. With `is_growing`, Redis rejects the call when its memory is full.
    ///
    /// The second key never exists. While a Cluster migrates a shard's slot, both nodes reject a call that names one
    /// existing key and one missing key. With one key, the call would run on the node to which that key has
    /// already moved, where all others are missing.
    pub(in crate::store) fn script_command(
        &self,
        script: &Script,
        is_growing: bool,
        keys: &Keys,
        scope: &ChannelScope,
    ) -> Cmd {
        let mut command = roomy_cmd("EVALSHA");
        command.arg(self.scripts.get(script).map_or("", |loaded| &loaded.text(is_growing).sha)).arg(2);
        command.arg(&[keys.callers(), keys.absent_guard(scope)]).arg(keys.base());
        command
    }

    /// Runs a script with retries until `deadline`. Sends its text if Redis does not know its digest. Returns `None` if
    /// the script did nothing, because the shard's clock is not confirmed.
    pub(in crate::store) async fn run_script(
        &self,
        script: &Script,
        is_growing: bool,
        command: &Cmd,
        deadline: Instant,
    ) -> Result<Option<Value>> {
        let unknown_script = || Error::Unexpected(format!("script {} is not in the list", script.name));
        let loaded = self.scripts.get(script).ok_or_else(unknown_script)?;
        let started = Instant::now();
        let attempt = |mut connection: Connection| async move {
            let outcome = match connection.send(command).await {
                Err(error) if error.kind() == ServerErrorKind::NoScript.into() => {
                    connection.send(&eval(&loaded.text(is_growing).text, command)).await
                }
                outcome => outcome,
            };
            match outcome {
                Err(error) if error.code() == Some("CLOCK") => Ok(None),
                outcome => outcome.map(Some),
            }
        };
        let outcome = self.with_retries(deadline, attempt).await;
        let outcome = outcome.and_then(|reply| reply.map(decode_msgpack).transpose());
        self.record_call(&loaded.latency, started, &outcome);
        outcome
    }
}

/// Returns a field of the reply to HELLO.
pub(super) fn hello_field(reply: Value, name: &str) -> Result<String> {
    let pairs: std::collections::HashMap<String, Value> =
        redis::from_redis_value(reply).map_err(|error| Error::Unexpected(error.to_string()))?;
    pairs.get(name).cloned().map_or_else(|| Ok("unknown".to_owned()), text)
}

/// Returns a command with room for the arguments of a call.
fn roomy_cmd(name: &str) -> Cmd {
    let mut command = Cmd::with_capacity(TYPICAL_ARGUMENTS, TYPICAL_BYTES);
    command.arg(name);
    command
}

/// Returns the call `evalsha` with the script's text in place of its digest.
fn eval(text: &str, evalsha: &Cmd) -> Cmd {
    let mut command = cmd("EVAL");
    command.arg(text);
    for argument in evalsha.args_iter().skip(2) {
        if let Arg::Simple(argument) = argument {
            command.arg(argument);
        }
    }
    command
}
