//! The processes of a system: started in a fresh directory, measured from outside, killed when they are dropped.
//!
//! Processor time is the kernel's account in nanoseconds (the process' CPU clock: all its threads, also ended ones),
//! for the process and its descendants, plus the time of ended children. Redis never rewrites its append-only file here
//! (`auto-aof-rewrite-percentage 0`), so that no background child falls into a single round.

use std::fs::{self, File};
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};
use nix::sys::signal::{Signal, killpg};
use nix::time::clock_getcpuclockid;
use nix::unistd::Pid;

use crate::adapters::{Fsync, Settings};

/// Timeout of a start.
pub const START: Duration = Duration::from_secs(60);
/// Attempts to start a Redis, each on another port.
const ATTEMPTS: usize = 5;

/// A child process in its own process group; dropping it kills the whole group.
pub struct Process {
    child: Child,
    log: PathBuf,
}

impl Process {
    /// Starts a command in `directory`; its output goes into a file there.
    pub fn start(mut command: Command, directory: &Path) -> Result<Self> {
        let name = Path::new(command.get_program()).file_name().unwrap_or_default().to_string_lossy().into_owned();
        let log = directory.join(format!("{name}.log"));
        let output = File::create(&log)?;
        command.current_dir(directory).stdin(Stdio::null()).stdout(output.try_clone()?).stderr(output);
        let child = command.process_group(0).spawn().with_context(|| format!("starting {name}"))?;
        Ok(Self { child, log })
    }

    /// Its process id.
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Calls `ready` until it returns true; an error with the end of the output if the process ends before.
    pub async fn until(&mut self, ready: impl AsyncFn() -> bool) -> Result<()> {
        let deadline = Instant::now() + START;
        while !ready().await {
            if let Some(status) = self.child.try_wait()? {
                bail!("it ended with {status}: {}", self.last_words());
            }
            if Instant::now() > deadline {
                bail!("it did not reply within {} s: {}", START.as_secs(), self.last_words());
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        Ok(())
    }

    fn last_words(&self) -> String {
        let log = fs::read_to_string(&self.log).unwrap_or_default();
        let lines: Vec<&str> = log.lines().rev().take(3).collect();
        lines.into_iter().rev().collect::<Vec<_>>().join(" | ")
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let _ = killpg(Pid::from_raw(self.child.id() as i32), Signal::SIGKILL);
        let _ = self.child.wait();
    }
}

/// Returns the processor time of a process and its descendants, in seconds.
pub fn cpu_seconds(pid: u32) -> Result<f64> {
    let clock = clock_getcpuclockid(Pid::from_raw(pid as i32)).with_context(|| format!("process {pid} has ended"))?;
    let own = Duration::from(clock.now()?).as_secs_f64();
    let mut all = own + waited_for(pid)?;
    for child in children(pid)? {
        // The time of a process that has just ended is, or will be, in its parent's account of children.
        all += cpu_seconds(child).unwrap_or(0.0);
    }
    Ok(all)
}

/// Returns the processor time of ended children, in seconds.
fn waited_for(pid: u32) -> Result<f64> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat"))?;
    let behind_the_name = stat.rsplit_once(") ").context("a stat file")?.1;
    let fields: Vec<&str> = behind_the_name.split(' ').collect();
    // cutime and cstime, in ticks of a hundredth of a second.
    Ok((fields[13].parse::<f64>()? + fields[14].parse::<f64>()?) / 100.0)
}

fn children(pid: u32) -> Result<Vec<u32>> {
    let mut found = Vec::new();
    for thread in fs::read_dir(format!("/proc/{pid}/task"))?.flatten() {
        let children = fs::read_to_string(thread.path().join("children")).unwrap_or_default();
        found.extend(children.split_whitespace().filter_map(|child| child.parse::<u32>().ok()));
    }
    Ok(found)
}

/// Whether a process has ended but was not yet waited for.
pub fn has_ended(pid: u32) -> bool {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    stat.rsplit_once(") ").is_none_or(|(_, behind_the_name)| behind_the_name.starts_with('Z'))
}

/// Returns the resident memory of a process, in bytes.
pub fn resident_bytes(pid: u32) -> Result<f64> {
    let status = fs::read_to_string(format!("/proc/{pid}/status"))?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).context("no VmRSS")?;
    Ok(line.trim().trim_end_matches(" kB").parse::<f64>()? * 1024.0)
}

/// Returns a free port.
pub fn free_port() -> Result<u16> {
    Ok(std::net::TcpListener::bind("127.0.0.1:0")?.local_addr()?.port())
}

/// A directory that is removed when this is dropped.
pub struct Directory(PathBuf);

impl Directory {
    /// Creates a directory named after its purpose.
    pub fn fresh(settings: &Settings, name: &str) -> Result<Self> {
        static NUMBER: AtomicU32 = AtomicU32::new(0);
        let number = NUMBER.fetch_add(1, Ordering::Relaxed);
        let path = settings.place.join(format!("slotwheel-bench-{}-{number}-{name}", std::process::id()));
        fs::create_dir_all(&path).with_context(|| format!("making {}", path.display()))?;
        Ok(Self(path))
    }

    /// Its path.
    pub fn path(&self) -> &Path {
        &self.0
    }
}

impl Drop for Directory {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

/// A Redis of one system, append-only, on a port and on a unix socket.
pub struct Redis {
    process: Process,
    directory: Directory,
    port: u16,
}

impl Redis {
    /// Starts a Redis; `more` are further settings (`["--name", "value"]`).
    pub async fn start(settings: &Settings, name: &str, more: &[&str]) -> Result<Self> {
        let mut started = Self::attempt(settings, name, more).await;
        // Another process may have taken the free port before the Redis did.
        for _ in 1..ATTEMPTS {
            match started {
                Ok(_) => break,
                Err(_) => started = Self::attempt(settings, name, more).await,
            }
        }
        started
    }

    async fn attempt(settings: &Settings, name: &str, more: &[&str]) -> Result<Self> {
        let directory = Directory::fresh(settings, &format!("{name}-redis"))?;
        let port = free_port()?;
        let fsync = match settings.fsync {
            Fsync::Everysec => "everysec",
            Fsync::Always => "always",
        };
        let mut command = Command::new("redis-server");
        command.args(["--port", &port.to_string(), "--bind", "127.0.0.1", "--unixsocket", "redis.sock"]);
        command.args(["--appendonly", "yes", "--appendfsync", fsync, "--auto-aof-rewrite-percentage", "0"]);
        command.args(["--save", "", "--maxmemory-policy", "noeviction"]).args(more);
        let process = Process::start(command, directory.path())?;
        let mut redis = Self { process, directory, port };
        let url = redis.url(false);
        redis.process.until(async || connection(&url).is_ok()).await.context("redis-server")?;
        Ok(redis)
    }

    /// Its process id.
    pub fn pid(&self) -> u32 {
        self.process.pid()
    }

    /// Its port on 127.0.0.1.
    pub fn port(&self) -> u16 {
        self.port
    }

    /// Its URL: by unix socket or by port.
    pub fn url(&self, unix: bool) -> String {
        match unix {
            true => format!("unix://{}", self.directory.path().join("redis.sock").display()),
            false => format!("redis://127.0.0.1:{}", self.port),
        }
    }

    /// Reads a number from INFO, in any section: `used_memory`, `connected_clients`.
    pub fn info(&self, name: &str) -> Result<u64> {
        let info: String = redis::cmd("INFO").arg("everything").query(&mut self.connection()?)?;
        let mut lines = info.lines().filter_map(|line| line.split_once(':'));
        let (_, value) = lines.find(|(found, _)| *found == name).with_context(|| format!("INFO has no {name}"))?;
        Ok(value.trim().parse()?)
    }

    /// Opens a connection for single commands.
    pub fn connection(&self) -> Result<redis::Connection> {
        connection(&self.url(false))
    }
}

fn connection(url: &str) -> Result<redis::Connection> {
    let mut connection = redis::Client::open(url)?.get_connection()?;
    redis::cmd("PING").query::<()>(&mut connection)?;
    Ok(connection)
}

/// Returns the version of redis-server.
pub fn redis_version() -> String {
    let output = Command::new("redis-server").arg("--version").output();
    let text = output.map(|output| String::from_utf8_lossy(&output.stdout).into_owned()).unwrap_or_default();
    text.split_whitespace().find_map(|word| word.strip_prefix("v=")).unwrap_or("unknown").to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shell(script: &str) -> (Process, PathBuf) {
        static NUMBER: AtomicU32 = AtomicU32::new(0);
        let number = NUMBER.fetch_add(1, Ordering::Relaxed);
        let directory = std::env::temp_dir().join(format!("slotwheel-bench-test-{}-{number}", std::process::id()));
        fs::create_dir_all(&directory).unwrap();
        let mut command = Command::new("sh");
        command.args(["-c", script]);
        (Process::start(command, &directory).unwrap(), directory)
    }

    fn until(mut holds: impl FnMut() -> bool) {
        let deadline = Instant::now() + Duration::from_secs(20);
        while !holds() {
            assert!(Instant::now() < deadline, "it never came");
            std::thread::yield_now();
        }
    }

    #[test]
    fn cpu_time_of_children_counts_during_and_after_their_life() {
        // The child is busy until a file exists; the shell itself is idle.
        let (shell, directory) = shell("(while [ ! -e stop ]; do :; done) & wait; touch waited; sleep 60");
        let used = || cpu_seconds(shell.pid()).unwrap();
        until(|| used() > 0.1);
        let while_it_lived = used();
        fs::write(directory.join("stop"), "").unwrap();
        until(|| directory.join("waited").exists());
        // The account of children is in hundredths of a second.
        assert!(used() > while_it_lived - 0.03, "{} after {while_it_lived}", used());
        drop(shell);
        fs::remove_dir_all(directory).unwrap();
    }

    #[test]
    fn dropped_process_kills_its_children() {
        let (shell, directory) = shell("sleep 60 & echo $! > child; wait");
        let mut child = String::new();
        until(|| {
            child = fs::read_to_string(directory.join("child")).unwrap_or_default();
            child.ends_with('\n')
        });
        drop(shell);
        until(|| has_ended(child.trim().parse().unwrap()));
        fs::remove_dir_all(directory).unwrap();
    }
}
