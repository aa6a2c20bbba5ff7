//! The embedded Redis: a redis-server process that the server starts, supervises, restarts and stops.
//!
//! Its data lies in the data directory (mode 0700). It listens on a unix socket, and its append-only file is synced
//! before every reply unless the configured durability is lower. It survives a crash of its server, and the next
//! start adopts it. A lock on the data directory excludes a second server.

use std::fs::{self, File};
use std::io;
use std::os::unix::fs::{DirBuilderExt, PermissionsExt};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use deadpool_redis::redis::{self, ErrorKind, ServerErrorKind, cmd};
use tokio::process::{Child, Command};
use tokio::time::{Instant, sleep};
use tokio_util::sync::CancellationToken;

use super::machine_memory;
use super::topology::Connection;
use crate::config::{Durability, MaxMemory};

/// The time limit for the first reply. Loading the data has no limit.
const START_TIMEOUT: Duration = Duration::from_secs(15);
const STOP_TIMEOUT: Duration = Duration::from_secs(10);
const LOCK_TIMEOUT: Duration = Duration::from_secs(1);
/// The time limit for connecting and for each reply.
const QUERY_TIMEOUT: Duration = Duration::from_secs(1);
const POLL_INTERVAL: Duration = Duration::from_millis(20);
/// How often an adopted redis-server is pinged. It is no child process, so its exit goes unnoticed otherwise.
const LIVENESS_INTERVAL: Duration = Duration::from_millis(500);

/// Why the embedded Redis is not running.
#[derive(Debug, thiserror::Error)]
pub enum EmbeddedRedisError {
    /// Neither program is on PATH.
    #[error(
        "neither redis-server nor valkey-server is on PATH. Install Redis 7.0 or later (Debian and Ubuntu: \
         apt-get install redis-server; macOS: brew install redis), or name a Redis with --redis-url"
    )]
    NotInstalled,
    /// Another server holds the lock on the data directory.
    #[error("another slotwheel uses the data directory {0}: stop it, or choose another with --data-dir")]
    InUse(PathBuf),
    /// A Redis with another data directory listens on the socket.
    #[error("a Redis with another data directory ({directory}) listens on {socket}: stop it first")]
    ForeignRedis {
        /// Its data directory.
        directory: String,
        /// The socket in this server's data directory.
        socket: PathBuf,
    },
    /// The operating system allows about 100 bytes for the path of a socket.
    #[error("the path {0} is too long for a unix socket: choose a shorter --data-dir")]
    PathTooLong(PathBuf),
    /// It exited before the first reply, or did not reply in time.
    #[error("redis-server did not start: {0}")]
    NotStarted(String),
    /// The data directory cannot be used.
    #[error("cannot use the data directory {0}: {1}")]
    Directory(PathBuf, io::Error),
}

/// A running redis-server, and the lock on its data directory.
#[derive(Debug)]
pub struct EmbeddedRedis {
    directory: PathBuf,
    socket: PathBuf,
    program: PathBuf,
    appendfsync: &'static str,
    /// Its limit of memory in bytes; 0: none.
    max_memory: u64,
    /// `None`: an earlier server started it.
    child: Option<Child>,
    _lock: File,
}

/// Kills a redis-server whose start fails or is given up: nothing else would stop it.
struct LaunchGuard(Option<Child>);

impl Drop for LaunchGuard {
    fn drop(&mut self) {
        if let Some(child) = &mut self.0 {
            let _ = child.start_kill();
        }
    }
}

impl EmbeddedRedis {
    /// Starts redis-server in `directory`, or adopts the one that a crashed server left running. Returns when it
    /// replies.
    pub async fn start(
        directory: &Path,
        durability: Durability,
        max_memory: MaxMemory,
    ) -> Result<Self, EmbeddedRedisError> {
        let failed = |error| EmbeddedRedisError::Directory(directory.to_owned(), error);
        fs::DirBuilder::new().recursive(true).mode(0o700).create(directory).map_err(failed)?;
        let directory = directory.canonicalize().map_err(failed)?;
        if let Err(error) = fs::set_permissions(&directory, fs::Permissions::from_mode(0o700)) {
            // A mounted volume may belong to another user and be writable through its group.
            tracing::warn!(%error, directory = %directory.display(), "cannot make the data directory private");
        }
        let lock = File::create(directory.join("slotwheel.lock")).map_err(failed)?;
        // A server that is stopping may still hold the lock, and so may a process that it is just starting.
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
        let max_memory = machine_memory::resolve(max_memory);
        let mut embedded =
            EmbeddedRedis { directory, socket, program, appendfsync, max_memory, child: None, _lock: lock };
        if embedded.adopt().await? {
            // The earlier server may have had other settings.
            for (name, value) in [("appendfsync", appendfsync), ("maxmemory", &max_memory.to_string())] {
                let set = embedded.query(&["CONFIG", "SET", name, value]).await;
                set.map_err(|error| EmbeddedRedisError::NotStarted(error.to_string()))?;
            }
            tracing::info!("adopted the redis-server of an earlier server");
        } else {
            embedded.launch().await?;
        }
        Ok(embedded)
    }

    /// Returns the URL of the embedded Redis of the server that holds the lock on `directory`. `None`: no server holds
    /// it.
    pub async fn running_url(directory: &Path) -> Option<String> {
        let directory = directory.canonicalize().ok()?;
        let lock = File::open(directory.join("slotwheel.lock")).ok()?;
        if lock.try_lock().is_ok() {
            return None;
        }
        Some(socket_url(&directory.join("redis.sock")))
    }

    /// Returns the URL of its socket.
    pub fn url(&self) -> String {
        socket_url(&self.socket)
    }

    /// Checks whether a redis-server with this data directory listens on the socket. If one listens without a reply,
    /// waits for it: a second one would write to the same files.
    async fn adopt(&self) -> Result<bool, EmbeddedRedisError> {
        let deadline = Instant::now() + START_TIMEOUT;
        loop {
            match self.query(&["CONFIG", "GET", "dir"]).await {
                Ok(reply) => {
                    let setting = redis::from_redis_value::<Vec<String>>(reply).unwrap_or_default();
                    let directory = setting.get(1).cloned().unwrap_or_default();
                    if Path::new(&directory) == self.directory {
                        return Ok(true);
                    }
                    return Err(EmbeddedRedisError::ForeignRedis { directory, socket: self.socket.clone() });
                }
                Err(error) if error.is_connection_refusal() => return Ok(false),
                Err(error) if Instant::now() > deadline => {
                    return Err(EmbeddedRedisError::NotStarted(format!(
                        "the one already running does not reply: {error}"
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
            // Its own process group: Ctrl-C in the terminal reaches only the server, which then stops Redis cleanly.
            .process_group(0);
        let mut launch = LaunchGuard(Some(Command::from(command).spawn().map_err(failed)?));
        let mut deadline = Instant::now() + START_TIMEOUT;
        loop {
            match self.query(&["PING"]).await {
                Ok(_) => break,
                Err(error) if is_loading(&error) => deadline = Instant::now() + START_TIMEOUT,
                Err(error) if Instant::now() > deadline => {
                    return Err(EmbeddedRedisError::NotStarted(error.to_string()));
                }
                Err(_) => {}
            }
            if let Some(Ok(Some(status))) = launch.0.as_mut().map(Child::try_wait) {
                return Err(EmbeddedRedisError::NotStarted(format!("{status}; end of its log: {}", self.log_tail())));
            }
            sleep(POLL_INTERVAL).await;
        }
        self.child = launch.0.take();
        Ok(())
    }

    fn config_file(&self) -> String {
        let directory = self.directory.display();
        let socket = self.socket.display();
        format!(
            "# Overwritten at every start.\n\
             dir \"{directory}\"\n\
             port 0\n\
             unixsocket \"{socket}\"\n\
             unixsocketperm 700\n\
             daemonize no\n\
             appendonly yes\n\
             appendfsync {}\n\
             save \"\"\n\
             maxmemory {}\n\
             maxmemory-policy noeviction\n\
             # Task hashes stay compact while no value is larger than this.\n\
             hash-max-listpack-value 4096\n",
            self.appendfsync, self.max_memory
        )
    }

    fn log_tail(&self) -> String {
        let log = fs::read_to_string(self.directory.join("redis.log")).unwrap_or_default();
        let lines: Vec<&str> = log.lines().rev().take(3).collect();
        lines.into_iter().rev().collect::<Vec<_>>().join(" | ")
    }

    async fn query(&self, command: &[&str]) -> redis::RedisResult<redis::Value> {
        let mut connection = Connection::open(&self.url(), QUERY_TIMEOUT).await?;
        let (name, arguments) = command.split_first().unwrap_or((&"PING", &[]));
        connection.send(cmd(name).arg(arguments)).await
    }

    /// Restarts redis-server whenever it exits. On `stop`, stops it and returns.
    pub async fn supervise(mut self, stop: CancellationToken) {
        loop {
            tokio::select! {
                () = self.exited() => {}
                () = stop.cancelled() => break,
            }
            tracing::error!(log_tail = self.log_tail(), "redis-server exited; restarting it");
            let relaunch = async {
                while let Err(error) = self.launch().await {
                    tracing::error!(%error, "starting redis-server failed");
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

    /// Returns when the process has exited.
    async fn exited(&mut self) {
        match &mut self.child {
            Some(child) => drop(child.wait().await),
            None => loop {
                sleep(LIVENESS_INTERVAL).await;
                // Only a refused connection means that it has exited. A busy redis-server replies late.
                if let Err(error) = self.query(&["PING"]).await
                    && error.is_connection_refusal()
                {
                    return;
                }
            },
        }
    }

    /// Stops redis-server and waits until it has exited.
    pub async fn stop(mut self) {
        // The append-only file is complete already. The connection breaks instead of a reply.
        let _ = self.query(&["SHUTDOWN", "NOSAVE"]).await;
        if tokio::time::timeout(STOP_TIMEOUT, self.exited()).await.is_err() {
            tracing::error!("stopping redis-server failed; it is left running");
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

/// Returns the path of the first program on PATH.
fn find_program() -> Option<PathBuf> {
    let path = std::env::var_os("PATH")?;
    ["redis-server", "valkey-server"].iter().find_map(|name| {
        std::env::split_paths(&path).map(|directory| directory.join(name)).find(|program| program.is_file())
    })
}
