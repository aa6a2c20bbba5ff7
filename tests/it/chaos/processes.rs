//! The processes: servers, each between two proxies; and worker processes, which run this test binary.

use std::io::{BufRead as _, BufReader, Write as _};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use tokio::sync::Mutex;
use tokio_util::sync::CancellationToken;

use super::client::Client;
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
    process: Mutex<Option<Child>>,
}

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
    async fn launch(&self) -> Child {
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
            std::thread::spawn(move || {
                for line in lines.map_while(Result::ok) {
                    let _ = writeln!(log, "{line}");
                    let address = line.split_once("listening address=").and_then(|(_, rest)| rest.split(' ').next());
                    address.and_then(|address| address.parse().ok()).map(|address| said.send(address));
                }
            });
            // The log ends with the process.
            if let Some(address) = heard.recv().await {
                self.front.lead_to(Some(Upstream::Tcp(address)));
                return child;
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
        let mut child = process.take().expect("a process");
        self.expect_alive(&mut child);
        end(&mut child, kill).await;
        self.front.lead_to(None);
        if !kill {
            self.front.cut(Cut::Fin);
        }
        pause(down).await;
        *process = Some(self.launch().await);
    }

    pub async fn freeze(&self, time: Duration) {
        let process = self.process.lock().await;
        let child = process.as_ref().expect("a process");
        signal(child, "-STOP");
        pause(time).await;
        signal(child, "-CONT");
    }

    /// Stops the server by SIGTERM, without a restart.
    pub async fn stop(&self) {
        let mut child = self.process.lock().await.take().expect("a process");
        self.expect_alive(&mut child);
        end(&mut child, false).await;
        self.front.lead_to(None);
    }

    /// Restarts the server after [`Server::stop`].
    pub async fn resume(&self) {
        *self.process.lock().await = Some(self.launch().await);
    }
}

async fn end(child: &mut Child, kill: bool) {
    signal(child, if kill { "-KILL" } else { "-TERM" });
    while child.try_wait().expect("a status").is_none() {
        pause(Duration::from_millis(10)).await;
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        if let Some(mut child) = self.process.get_mut().take() {
            let _ = child.kill();
            let _ = child.wait();
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
    recorder.read_clock(&orders.redis).await;
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
    recorder.read_clock(&orders.redis).await;
    let strange = recorder.strange();
    assert!(strange.is_empty(), "{strange:#?}");
}
