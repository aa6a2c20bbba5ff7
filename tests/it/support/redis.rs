//! A redis-server for one test, on a unix socket in its own directory (a Cluster: on its own port).

use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use deadpool_redis::redis::aio::MultiplexedConnection;
use deadpool_redis::redis::{self, AsyncConnectionConfig, Cmd, FromRedisValue, cmd};
use tokio::time::timeout;

use super::ports::free_port;

/// Opens a test's own connection. The client's default timeout of half a second is too short for a busy machine.
pub async fn connect(url: &str) -> redis::RedisResult<MultiplexedConnection> {
    let patience = AsyncConnectionConfig::new().set_response_timeout(Some(Duration::from_secs(20)));
    redis::Client::open(url)?.get_multiplexed_async_connection_with_config(&patience).await
}

/// The kind of Redis of this run.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Flavour {
    Single,
    Cluster,
    Shim,
}

impl Flavour {
    pub fn of_this_run() -> Self {
        match std::env::var("SLOTWHEEL_TEST_ON").as_deref() {
            Err(_) | Ok("single") => Flavour::Single,
            Ok("cluster") => Flavour::Cluster,
            Ok("shim") => Flavour::Shim,
            Ok(other) => panic!("SLOTWHEEL_TEST_ON is {other}: it takes single, cluster or shim"),
        }
    }
}

/// A directory that is deleted after the test.
#[derive(Debug)]
pub struct TempDir(PathBuf);

impl TempDir {
    pub fn new() -> Self {
        let path = std::env::temp_dir().join(format!("sw{:016x}", rand::random::<u64>()));
        std::fs::create_dir(&path).expect("a directory");
        TempDir(path)
    }

    pub fn path(&self) -> &Path {
        &self.0
    }
}

impl Drop for TempDir {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

/// A running redis-server.
#[derive(Debug)]
pub struct OwnRedis {
    pub url: String,
    child: Child,
    directory: TempDir,
    arguments: Vec<String>,
    /// The clock that the test sets, if it has one of its own.
    clock: Option<OwnClock>,
}

/// The clock of a running Redis, in a file that its process reads.
#[derive(Clone, Debug)]
pub struct OwnClock(PathBuf);

impl OwnClock {
    /// Sets the clock to this many seconds ahead of the machine's.
    pub fn set(&self, seconds: i64) {
        let OwnClock(file) = self;
        // Renames a file, because a reader must not find half of it.
        let new = file.with_extension("new");
        std::fs::write(&new, format!("{seconds:+}")).and_then(|()| std::fs::rename(&new, file)).expect("a file");
    }
}

impl OwnRedis {
    pub async fn start() -> Self {
        Self::with(&[]).await
    }

    /// Starts a server with further arguments, like `["--maxmemory-policy", "allkeys-lru"]`.
    pub async fn with(more: &[&str]) -> Self {
        let cluster = Flavour::of_this_run() == Flavour::Cluster;
        let mut patience = 5;
        loop {
            match Self::attempt(more, cluster, false).await {
                Some(redis) => return redis,
                // Another process has taken the port.
                None if patience > 0 => patience -= 1,
                None => panic!("redis-server does not start"),
            }
        }
    }

    /// Starts a single Redis, whose clock [`OwnRedis::set_clock`] sets while it runs.
    pub async fn with_own_clock(more: &[&str]) -> Self {
        Self::attempt(more, false, true).await.expect("redis-server starts")
    }

    /// Sets Redis' clock to this many seconds ahead of the machine's.
    pub fn set_clock(&self, seconds: i64) {
        self.clock().set(seconds);
    }

    /// Its own clock, to be set while it is down or frozen.
    pub fn clock(&self) -> &OwnClock {
        self.clock.as_ref().expect("a clock of its own")
    }

    /// Starts a single Redis in every run.
    pub async fn single(more: &[&str]) -> Self {
        Self::attempt(more, false, false).await.expect("redis-server starts")
    }

    /// Its process id.
    pub fn process(&self) -> u32 {
        self.child.id()
    }

    async fn attempt(more: &[&str], cluster: bool, has_own_clock: bool) -> Option<Self> {
        let directory = TempDir::new();
        let mut arguments: Vec<String> = Vec::new();
        let mut say = |words: &[&str]| arguments.extend(words.iter().map(|word| (*word).to_owned()));
        // Append-only as in production, but without fsync.
        say(&["--appendonly", "yes", "--appendfsync", "no", "--save", "", "--hash-max-listpack-value", "4096"]);
        let url = if cluster {
            let (port, bus) = (free_port().to_string(), free_port().to_string());
            say(&["--port", &port, "--bind", "127.0.0.1", "--cluster-enabled", "yes", "--cluster-port", &bus]);
            say(&["--cluster-announce-ip", "127.0.0.1"]);
            format!("redis://127.0.0.1:{port}")
        } else {
            let socket = directory.path().join("s");
            say(&["--port", "0", "--unixsocket", socket.to_str().expect("a path")]);
            format!("unix://{}", socket.display())
        };
        say(more);
        let clock = has_own_clock.then(|| OwnClock(directory.path().join("clock")));
        clock.iter().for_each(|clock| clock.set(0));
        let child = launch(&directory, &arguments, clock.as_ref());
        let mut redis = OwnRedis { url, child, directory, arguments, clock };
        if !redis.answers().await {
            return None;
        }
        if cluster {
            let _: () = redis.ask(cmd("CLUSTER").arg("ADDSLOTSRANGE").arg(0).arg(16383)).await;
            let ready =
                async { while !redis.ask::<String>(cmd("CLUSTER").arg("INFO")).await.contains("cluster_state:ok") {} };
            timeout(Duration::from_secs(20), ready).await.expect("a Cluster");
        }
        Some(redis)
    }

    async fn answers(&mut self) -> bool {
        let answers = async {
            loop {
                if self.child.try_wait().expect("a child").is_some() {
                    return false;
                }
                if self.try_ask::<String>(&cmd("PING")).await.is_ok() {
                    return true;
                }
            }
        };
        timeout(Duration::from_secs(20), answers).await.unwrap_or(false)
    }

    async fn try_ask<T: FromRedisValue>(&self, command: &Cmd) -> redis::RedisResult<T> {
        command.query_async(&mut connect(&self.url).await?).await
    }

    /// Runs a command and returns its reply.
    pub async fn ask<T: FromRedisValue>(&self, command: &Cmd) -> T {
        self.try_ask(command).await.expect("an answer of Redis")
    }

    /// Stops the process (SIGSTOP); requests to it wait.
    pub fn freeze(&self) {
        self.signal("-STOP");
    }

    /// Continues the process (SIGCONT).
    pub fn thaw(&self) {
        self.signal("-CONT");
    }

    fn signal(&self, name: &str) {
        let done = Command::new("kill").args([name, &self.child.id().to_string()]).status();
        assert!(done.expect("kill").success());
    }

    /// Kills the process, like a crash.
    pub fn kill(&mut self) {
        self.child.kill().expect("a kill");
        self.child.wait().expect("an end");
        self.remove_shared_memory();
    }

    /// Removes what libfaketime leaves behind if its process is killed.
    fn remove_shared_memory(&self) {
        if self.clock.is_some() {
            for name in ["faketime_shm_", "sem.faketime_sem_"] {
                let _ = std::fs::remove_file(format!("/dev/shm/{name}{}", self.child.id()));
            }
        }
    }

    /// Restarts it with the same address and data.
    pub async fn restart(&mut self) {
        self.child = launch(&self.directory, &self.arguments, self.clock.as_ref());
        assert!(self.answers().await, "redis-server starts again");
    }

    pub async fn stop(&mut self) {
        self.kill();
    }
}

impl Drop for OwnRedis {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
        self.remove_shared_memory();
    }
}

/// The library that sets the clock of a single process.
pub fn faketime_library() -> &'static str {
    let libraries = [
        "/usr/lib/x86_64-linux-gnu/faketime/libfaketimeMT.so.1",
        "/usr/lib/aarch64-linux-gnu/faketime/libfaketimeMT.so.1",
    ];
    libraries.into_iter().find(|path| Path::new(path).exists()).expect("libfaketime (apt-get install faketime)")
}

fn launch(directory: &TempDir, arguments: &[String], clock: Option<&OwnClock>) -> Child {
    // With XFSZ ignored, a file size limit is an error, like a full disk, and no deadly signal.
    let mut command = Command::new("sh");
    if let Some(OwnClock(file)) = clock {
        // The allocator of Redis asks for the time, and the library allocates to answer: that of libc does not.
        command.env("LD_PRELOAD", format!("{}:libc.so.6", faketime_library()));
        command.env("FAKETIME_TIMESTAMP_FILE", file);
        command.envs([("FAKETIME_NO_CACHE", "1"), ("FAKETIME_DONT_FAKE_MONOTONIC", "1")]);
    }
    command
        .args(["-c", "trap '' XFSZ; exec redis-server \"$@\"", "redis-server"])
        .args(arguments)
        .current_dir(directory.path())
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .expect("redis-server on PATH")
}
