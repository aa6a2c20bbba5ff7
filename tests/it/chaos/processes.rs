//! The processes: servers, each between two proxies; and worker processes, which run this test binary.

use std::io::{BufRead as _, BufReader, Write as _};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use serde::{Deserialize, Serialize};
use tokio::sync::{Mutex, OwnedMutexGuard};
use tokio_util::sync::CancellationToken;

use super::client::Client;
use super::clock::ClockWatch;
use super::pause;
use super::proxy::{Cut, Proxy, Upstream};
use super::recorder::Recorder;
use super::worker;

/// Environment variable that makes this binary a worker process; its value is the orders.
pub const WORKER: &str = "SLOTWHEEL_CHAOS_WORKER";

fn signal(child: &Child, name: &str) {
    assert!(Command::new("kill").args([name, &child.id().to_string()]).status().expect("kill").success());
}

/// A slotwheel server that is killed and restarted.
pub struct Server {
    /// Between clients and the server.
    pub front: Proxy,
    /// Between the server and Redis.
    pub back: Proxy,
    log: PathBuf,
    recorder: Arc<Recorder>,
    process: Mutex<Option<Running>>,
}

/// A process of a server.
struct Running {
    child: Child,
    address: SocketAddr,
    /// Locked by the reader of its log for each line.
    log: Arc<Mutex<()>>,
    /// While held, its log is not read.
    unread: Option<OwnedMutexGuard<()>>,
}

/// Errors that fill the pipe of a log several times.
const ERRORS: usize = 1000;
/// The most time that they take: Redis may be frozen at first.
const ERRORS_WITHIN: Duration = Duration::from_secs(12);
/// Within this time a running server answers a request that needs no Redis.
const ALIVE_WITHIN: Duration = Duration::from_secs(5);
/// Within this time a server ends: longer than `shutdown_timeout_ms`.
const ENDS_WITHIN: Duration = Duration::from_secs(30);

impl Server {
    pub async fn start(number: usize, folder: &Path, redis: &Path, recorder: &Arc<Recorder>) -> Self {
        let server = Server {
            front: Proxy::start(None).await,
            back: Proxy::start(Some(Upstream::Unix(redis.to_owned()))).await,
            log: folder.join(format!("server{number}.log")),
            recorder: recorder.clone(),
            process: Mutex::new(None),
        };
        let first = server.launch().await;
        *server.process.lock().await = Some(first);
        server
    }

    /// Returns when the server listens. If the start failed because Redis went down, it is repeated, as a service
    /// manager would.
    async fn launch(&self) -> Running {
        loop {
            let mut child = Command::new(env!("CARGO_BIN_EXE_slotwheel"))
                .args(["--listen", "127.0.0.1:0", "--poll-interval-ms", "500", "--shards", "1"])
                .arg("--redis-url")
                .arg(format!("redis://wheel:secret@{}", self.back.address))
                .env_remove("SLOTWHEEL_CONFIG")
                .stdin(Stdio::null())
                .stderr(Stdio::piped())
                .spawn()
                .expect("a server");
            let lines = BufReader::new(child.stderr.take().expect("its log")).lines();
            let mut log = std::fs::File::options().create(true).append(true).open(&self.log).expect("a log");
            let (said, mut heard) = tokio::sync::mpsc::unbounded_channel();
            let gate = Arc::new(Mutex::new(()));
            let log_gate = gate.clone();
            std::thread::spawn(move || {
                for line in lines.map_while(Result::ok) {
                    drop(log_gate.blocking_lock());
                    let _ = writeln!(log, "{line}");
                    let address = line.split_once("listening address=").and_then(|(_, rest)| rest.split(' ').next());
                    address.and_then(|address| address.parse().ok()).map(|address| said.send(address));
                }
            });
            // The log ends with the process.
            if let Some(address) = heard.recv().await {
                self.front.lead_to(Some(Upstream::Tcp(address)));
                return Running { child, address, log: gate, unread: None };
            }
            child.wait().expect("an end");
            self.recorder.count("starts that failed", 1);
            pause(Duration::from_millis(200)).await;
        }
    }

    fn expect_alive(&self, child: &mut Child) {
        if let Some(status) = child.try_wait().expect("a status") {
            self.recorder.note_strange(format!("a server ended by itself: {status}, see {}", self.log.display()));
        }
    }

    /// Ends the server by SIGKILL or SIGTERM, and restarts it after `down`.
    pub async fn restart(&self, kill: bool, down: Duration) {
        let mut process = self.process.lock().await;
        let mut running = process.take().expect("a process");
        self.expect_alive(&mut running.child);
        self.end(&mut running.child, kill).await;
        drop(running);
        self.front.lead_to(None);
        if !kill {
            self.front.cut(Cut::Fin);
        }
        pause(down).await;
        *process = Some(self.launch().await);
    }

    /// Returns when the server runs and no fault of its process is under way. Further ones wait for the drop of the result.
    pub async fn hold(&self) -> impl Drop + use<'_> {
        self.process.lock().await
    }

    pub async fn freeze(&self, time: Duration) {
        let process = self.process.lock().await;
        let child = &process.as_ref().expect("a process").child;
        signal(child, "-STOP");
        pause(time).await;
        signal(child, "-CONT");
    }

    /// Leaves the log unread while the server logs errors, and then for `time`, or until its process ends. The server must
    /// go on. `task` is unreadable: each request for it is an error. Returns the number of errors.
    pub async fn leave_log_unread(&self, task: &str, time: Option<Duration>) -> usize {
        let mut process = self.process.lock().await;
        let running = process.as_mut().expect("a process");
        let unread = match running.unread.take() {
            Some(unread) => unread,
            None => running.log.clone().lock_owned().await,
        };
        let errors = log_errors(format!("http://{}/tasks/{task}", running.address)).await;
        pause(time.unwrap_or_default()).await;
        let livez = reqwest::Client::builder().no_proxy().timeout(ALIVE_WITHIN).build().expect("a client");
        let answer = livez.get(format!("http://{}/livez", running.address)).send().await;
        if !answer.is_ok_and(|answer| answer.status() == 200) {
            self.recorder.note_strange(format!("a server with an unread log does not go on after {errors} errors"));
        }
        running.unread = time.is_none().then_some(unread);
        errors
    }

    /// Stops the server by SIGTERM, without a restart.
    pub async fn stop(&self) {
        let mut running = self.process.lock().await.take().expect("a process");
        self.expect_alive(&mut running.child);
        self.end(&mut running.child, false).await;
        self.front.lead_to(None);
    }

    async fn end(&self, child: &mut Child, kill: bool) {
        if tokio::time::timeout(ENDS_WITHIN, end(child, kill)).await.is_err() {
            self.recorder.note_strange(format!("a server did not end on SIGTERM, see {}", self.log.display()));
            end(child, true).await;
        }
    }

    /// Restarts the server after [`Server::stop`].
    pub async fn resume(&self) {
        *self.process.lock().await = Some(self.launch().await);
    }
}

/// Sends requests until enough of them were errors of the server. Returns their number.
async fn log_errors(url: String) -> usize {
    let http = reqwest::Client::builder().no_proxy().timeout(ALIVE_WITHIN).build().expect("a client");
    let errors = Arc::new(AtomicUsize::new(0));
    let senders = (0..8).map(|_| {
        let (http, url, errors) = (http.clone(), url.clone(), errors.clone());
        async move {
            while errors.load(Ordering::Relaxed) < ERRORS {
                let answer = http.get(&url).send().await;
                if answer.is_ok_and(|answer| answer.status() == 500) {
                    errors.fetch_add(1, Ordering::Relaxed);
                }
            }
        }
    });
    let senders: tokio::task::JoinSet<()> = senders.collect();
    let _ = tokio::time::timeout(ERRORS_WITHIN, senders.join_all()).await;
    errors.load(Ordering::Relaxed)
}

async fn end(child: &mut Child, kill: bool) {
    signal(child, if kill { "-KILL" } else { "-TERM" });
    while child.try_wait().expect("a status").is_none() {
        pause(Duration::from_millis(10)).await;
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        if let Some(mut running) = self.process.get_mut().take() {
            let _ = running.child.kill();
            let _ = running.child.wait();
        }
    }
}

/// The orders of a worker process.
#[derive(Clone, Serialize, Deserialize)]
pub struct Orders {
    pub seed: u64,
    pub name: String,
    pub servers: Vec<std::net::SocketAddr>,
    pub redis: PathBuf,
    pub folder: PathBuf,
}

/// A worker process that is frozen, killed and replaced.
pub struct Crew {
    orders: Orders,
    process: Mutex<(u32, Option<Child>)>,
}

impl Crew {
    pub async fn start(orders: Orders) -> Self {
        let crew = Crew { orders, process: Mutex::new((0, None)) };
        crew.launch(&mut *crew.process.lock().await);
        crew
    }

    fn launch(&self, process: &mut (u32, Option<Child>)) {
        process.0 += 1;
        let orders = Orders { name: format!("{}.{}", self.orders.name, process.0), ..self.orders.clone() };
        let log = std::fs::File::create(orders.folder.join(format!("{}.log", orders.name))).expect("a log");
        let child = Command::new(std::env::current_exe().expect("this binary"))
            .args(["chaos::worker_process", "--exact", "--nocapture"])
            .env(WORKER, serde_json::to_string(&orders).expect("JSON"))
            .stdin(Stdio::piped())
            .stdout(log.try_clone().expect("a log"))
            .stderr(log)
            .spawn();
        process.1 = Some(child.expect("a worker process"));
    }

    pub async fn kill(&self) {
        let mut process = self.process.lock().await;
        let child = process.1.as_mut().expect("a process");
        end(child, true).await;
        self.launch(&mut process);
    }

    pub async fn freeze(&self, time: Duration) {
        let process = self.process.lock().await;
        let child = process.1.as_ref().expect("a process");
        signal(child, "-STOP");
        pause(time).await;
        signal(child, "-CONT");
    }

    /// Lets the worker finish its leases; returns whether it ended successfully.
    pub async fn stop(&self) -> bool {
        let mut child = self.process.lock().await.1.take().expect("a process");
        drop(child.stdin.take());
        loop {
            if let Some(status) = child.try_wait().expect("a status") {
                return status.success();
            }
            pause(Duration::from_millis(20)).await;
        }
    }
}

impl Drop for Crew {
    fn drop(&mut self) {
        if let Some(mut child) = self.process.get_mut().1.take() {
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

/// Works by its orders until its standard input ends, so it ends with its parent.
pub async fn obey(orders: Orders) {
    let recorder = Arc::new(Recorder::new(&orders.folder, &orders.name));
    let clock = ClockWatch::start(&orders.redis, &recorder).await;
    let stop = CancellationToken::new();
    let ending = stop.clone();
    std::thread::spawn(move || {
        let _ = std::io::stdin().read_line(&mut String::new());
        ending.cancel();
    });
    let polite = Arc::new(AtomicBool::new(false));
    let workers = (0..3).map(|number| {
        let client = Client::new(format!("{}/{number}", orders.name), orders.seed, &orders.servers, &recorder);
        tokio::spawn(worker::work(client, polite.clone(), stop.clone()))
    });
    for worker in workers.collect::<Vec<_>>() {
        worker.await.expect("no panic");
    }
    clock.end().await;
    let strange = recorder.strange();
    assert!(strange.is_empty(), "{strange:#?}");
}
