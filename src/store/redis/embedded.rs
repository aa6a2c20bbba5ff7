//! The Redis that a server brings along: started, watched, started again, stopped.
//!
//! It lives in the data directory (0700), on a unix socket, append-only with an fsync before every answer unless
//! the settings ask for less. It outlives
//! a crash of its server; the next start adopts it. A lock on the data directory keeps a second server away.

use std::fs::{self, File};
use std::io;
use std::os::unix::fs::{DirBuilderExt, PermissionsExt};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use crate::config::Durability;
use deadpool_redis::redis::{self, Client, ErrorKind, ServerErrorKind, cmd};
use tokio::process::{Child, Command};
use tokio::time::{Instant, sleep};
use tokio_util::sync::CancellationToken;

/// How long it may take to begin answering, apart from loading its data, which may take as long as it takes.
const START_TIMEOUT: Duration = Duration::from_secs(15);
const STOP_TIMEOUT: Duration = Duration::from_secs(10);
const LOCK_TIMEOUT: Duration = Duration::from_secs(1);
const POLL_INTERVAL: Duration = Duration::from_millis(20);
/// How often an adopted one, which is no child of ours, is asked whether it lives.
const LIVENESS_INTERVAL: Duration = Duration::from_millis(500);

/// Why there is no managed Redis.
#[derive(Debug, thiserror::Error)]
pub enum EmbeddedRedisError {
    /// None of the programs is on PATH.
    #[error(
        "neither redis-server nor valkey-server is on PATH. Install Redis 7.0 or later (Debian and Ubuntu: \
         apt-get install redis-server; macOS: brew install redis), or name a Redis with --redis-url"
    )]
    NotInstalled,
    /// Another server has the data directory.
    #[error("another slotwheel uses the data directory {0}: stop it, or choose another with --data-dir")]
    InUse(PathBuf),
    /// A Redis that is not ours answers on our socket.
    #[error("a Redis with the data directory {theirs} answers on {socket}, where ours should: stop it first")]
    ForeignRedis {
        /// What it says of itself.
        theirs: String,
        /// Where it answers.
        socket: PathBuf,
    },
    /// The operating system allows about a hundred bytes for a socket's path.
    #[error("the path {0} is too long for a unix socket: choose a shorter --data-dir")]
    PathTooLong(PathBuf),
    /// It ended before it answered, or never did.
    #[error("redis-server did not start: {0}")]
    NotStarted(String),
    /// The data directory cannot be used.
    #[error("the data directory {0}: {1}")]
    Directory(PathBuf, io::Error),
}

/// A Redis of our own, and the lock on its directory.
#[derive(Debug)]
pub struct EmbeddedRedis {
    directory: PathBuf,
    socket: PathBuf,
    program: PathBuf,
    appendfsync: &'static str,
    /// `None`: adopted.
    child: Option<Child>,
    _lock: File,
}

impl EmbeddedRedis {
    /// Starts one in `directory`, or adopts the one that a crashed server left there, and waits until it answers.
    pub async fn start(directory: &Path, durability: Durability) -> Result<Self, EmbeddedRedisError> {
        let failed = |error| EmbeddedRedisError::Directory(directory.to_owned(), error);
        fs::DirBuilder::new().recursive(true).mode(0o700).create(directory).map_err(failed)?;
        let directory = directory.canonicalize().map_err(failed)?;
        if let Err(error) = fs::set_permissions(&directory, fs::Permissions::from_mode(0o700)) {
            // A volume may belong to another user and be ours through its group. What Redis writes is its own to judge.
            tracing::warn!(%error, directory = %directory.display(), "the data directory cannot be made private");
        }
        let lock = File::create(directory.join("slotwheel.lock")).map_err(failed)?;
        // One who is just ending may hold it still, and so may a process that is just being started by one who has.
        let deadline = Instant::now() + LOCK_TIMEOUT;
        while lock.try_lock().is_err() {
            if Instant::now() > deadline {
                return Err(EmbeddedRedisError::InUse(directory));
            }
            sleep(POLL_INTERVAL).await;
        }
        let socket = directory.join("redis.sock");
        if socket.as_os_str().len() > 100 {
            return Err(EmbeddedRedisError::PathTooLong(socket));
        }
        let program = find_program().ok_or(EmbeddedRedisError::NotInstalled)?;
        let appendfsync = match durability {
            Durability::AsConfigured | Durability::Fsync | Durability::Replicated(_) => "always",
            Durability::Everysec => "everysec",
        };
        let mut embedded = EmbeddedRedis { directory, socket, program, appendfsync, child: None, _lock: lock };
        if embedded.adopt().await? {
            // It may have been started for another level.
            let set = embedded.query(&["CONFIG", "SET", "appendfsync", appendfsync]).await;
            set.map_err(|error| EmbeddedRedisError::NotStarted(error.to_string()))?;
            tracing::info!("took over the redis-server that an earlier server left running");
        } else {
            embedded.launch().await?;
        }
        Ok(embedded)
    }

    /// The URL of the one that a running server keeps in `directory`, if there is one.
    pub async fn running_url(directory: &Path) -> Option<String> {
        let directory = directory.canonicalize().ok()?;
        let lock = File::open(directory.join("slotwheel.lock")).ok()?;
        if lock.try_lock().is_ok() {
            return None;
        }
        Some(socket_url(&directory.join("redis.sock")))
    }

    /// Where it listens.
    pub fn url(&self) -> String {
        socket_url(&self.socket)
    }

    /// Whether one answers on the socket and is ours. One that is there and does not answer is waited for: a second
    /// one beside it would write into its files.
    async fn adopt(&self) -> Result<bool, EmbeddedRedisError> {
        let deadline = Instant::now() + START_TIMEOUT;
        loop {
            match self.query(&["CONFIG", "GET", "dir"]).await {
                Ok(answer) => {
                    let theirs = redis::from_redis_value::<Vec<String>>(answer).unwrap_or_default();
                    let theirs = theirs.get(1).cloned().unwrap_or_default();
                    if Path::new(&theirs) == self.directory {
                        return Ok(true);
                    }
                    return Err(EmbeddedRedisError::ForeignRedis { theirs, socket: self.socket.clone() });
                }
                Err(error) if error.is_connection_refusal() => return Ok(false),
                Err(error) if Instant::now() > deadline => {
                    return Err(EmbeddedRedisError::NotStarted(format!(
                        "one that runs already does not answer: {error}"
                    )));
                }
                Err(_) => sleep(POLL_INTERVAL).await,
            }
        }
    }

    async fn launch(&mut self) -> Result<(), EmbeddedRedisError> {
        let failed = |error: io::Error| EmbeddedRedisError::NotStarted(error.to_string());
        let config = self.directory.join("redis.conf");
        fs::write(&config, self.config_file()).map_err(failed)?;
        let log = File::options().create(true).append(true).open(self.directory.join("redis.log")).map_err(failed)?;
        let mut command = std::process::Command::new(&self.program);
        command
            .arg(&config)
            .current_dir(&self.directory)
            .stdin(Stdio::null())
            .stdout(log.try_clone().map_err(failed)?)
            .stderr(log)
            // Its own group: a Ctrl-C at the terminal is for the server, which then stops its Redis in good order.
            .process_group(0);
        let mut child = Command::from(command).spawn().map_err(failed)?;
        let mut deadline = Instant::now() + START_TIMEOUT;
        loop {
            match self.query(&["PING"]).await {
                Ok(_) => break,
                Err(error) if is_loading(&error) => deadline = Instant::now() + START_TIMEOUT,
                Err(error) if Instant::now() > deadline => {
                    let _ = child.kill().await;
                    return Err(EmbeddedRedisError::NotStarted(error.to_string()));
                }
                Err(_) => {}
            }
            if let Ok(Some(status)) = child.try_wait() {
                return Err(EmbeddedRedisError::NotStarted(format!("{status}; its last words: {}", self.log_tail())));
            }
            sleep(POLL_INTERVAL).await;
        }
        self.child = Some(child);
        Ok(())
    }

    fn config_file(&self) -> String {
        let directory = self.directory.display();
        let socket = self.socket.display();
        format!(
            "# Written at every start.\n\
             dir \"{directory}\"\n\
             port 0\n\
             unixsocket \"{socket}\"\n\
             unixsocketperm 700\n\
             daemonize no\n\
             appendonly yes\n\
             appendfsync {}\n\
             save \"\"\n\
             maxmemory-policy noeviction\n\
             # Task hashes stay compact up to this size of a value.\n\
             hash-max-listpack-value 4096\n",
            self.appendfsync
        )
    }

    fn log_tail(&self) -> String {
        let log = fs::read_to_string(self.directory.join("redis.log")).unwrap_or_default();
        let lines: Vec<&str> = log.lines().rev().take(3).collect();
        lines.into_iter().rev().collect::<Vec<_>>().join(" | ")
    }

    async fn query(&self, command: &[&str]) -> redis::RedisResult<redis::Value> {
        let config = redis::AsyncConnectionConfig::new()
            .set_connection_timeout(Some(Duration::from_secs(1)))
            .set_response_timeout(Some(Duration::from_secs(1)));
        let client = Client::open(self.url())?;
        let mut connection = client.get_multiplexed_async_connection_with_config(&config).await?;
        let (name, arguments) = command.split_first().unwrap_or((&"PING", &[]));
        cmd(name).arg(arguments).query_async(&mut connection).await
    }

    /// Starts it again whenever it ends, until `stop`; then stops it.
    pub async fn supervise(mut self, stop: CancellationToken) {
        loop {
            tokio::select! {
                () = self.exited() => {}
                () = stop.cancelled() => break,
            }
            tracing::error!(last_words = self.log_tail(), "redis-server has ended; starting it again");
            // One that does not listen yet when the server is told to stop is left to the next start, which adopts it.
            let relaunch = async {
                while let Err(error) = self.launch().await {
                    tracing::error!(%error, "redis-server does not start");
                    sleep(Duration::from_secs(1)).await;
                }
            };
            tokio::select! {
                () = relaunch => {}
                () = stop.cancelled() => break,
            }
        }
        self.stop().await;
    }

    /// Returns when it has ended.
    async fn exited(&mut self) {
        match &mut self.child {
            Some(child) => drop(child.wait().await),
            None => loop {
                sleep(LIVENESS_INTERVAL).await;
                // Only a refused connection means that it is gone; a busy one answers late.
                if let Err(error) = self.query(&["PING"]).await
                    && error.is_connection_refusal()
                {
                    return;
                }
            },
        }
    }

    /// Stops it and waits until it has ended.
    pub async fn stop(mut self) {
        // All is in the append-only file already. The connection breaks instead of answering.
        let _ = self.query(&["SHUTDOWN", "NOSAVE"]).await;
        if tokio::time::timeout(STOP_TIMEOUT, self.exited()).await.is_err() {
            tracing::error!("redis-server does not stop; it is left running");
        }
    }
}

fn socket_url(socket: &Path) -> String {
    let path = socket.to_string_lossy();
    format!("unix://{}", percent_encoding::utf8_percent_encode(&path, percent_encoding::CONTROLS))
}

fn is_loading(error: &redis::RedisError) -> bool {
    error.kind() == ErrorKind::Server(ServerErrorKind::BusyLoading)
}

/// The first of the programs on PATH.
fn find_program() -> Option<PathBuf> {
    let path = std::env::var_os("PATH")?;
    ["redis-server", "valkey-server"].iter().find_map(|name| {
        std::env::split_paths(&path).map(|directory| directory.join(name)).find(|program| program.is_file())
    })
}
