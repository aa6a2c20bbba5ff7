//! A rolling restart of three servers under load, as real processes: no task is lost, and no request fails except by a
//! refused connection while a process is down. On an overloaded machine a request may meet the close of its idle
//! connection: it is repeated like a refused one, and must stay rare.

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use serde_json::{Value, json};

use crate::support::ports::free_port;
use crate::support::redis::OwnRedis;
use crate::support::{Fixture, Http, text};

/// One of the three servers, on a fixed port.
struct Replica {
    address: SocketAddr,
    url: String,
    child: Child,
}

impl Replica {
    async fn start(url: &str) -> Self {
        let address = SocketAddr::from(([127, 0, 0, 1], free_port()));
        let mut replica = Replica { address, url: url.to_owned(), child: Self::spawn(address, url) };
        replica.until_ready().await;
        replica
    }

    fn spawn(address: SocketAddr, url: &str) -> Child {
        Command::new(env!("CARGO_BIN_EXE_slotwheel"))
            .args(["--listen", &address.to_string(), "--redis-url", url, "--log", "warn", "--drain-ms", "500"])
            .stdin(Stdio::null())
            .spawn()
            .expect("a server")
    }

    async fn until_ready(&mut self) {
        let ready = async { while !Http::new(self.address).is_ready().await {} };
        tokio::time::timeout(Duration::from_secs(30), ready).await.expect("ready in 30 s");
    }

    fn terminate(&self) {
        let done = Command::new("kill").args(["-TERM", &self.child.id().to_string()]).status();
        assert!(done.expect("kill").success());
    }

    async fn restart(&mut self) {
        self.terminate();
        let child = std::mem::replace(&mut self.child, Command::new("true").spawn().expect("true"));
        let ended = tokio::task::spawn_blocking(move || child.wait_with_output()).await.expect("no panic");
        assert!(ended.expect("an end").status.success(), "a clean end");
        self.child = Self::spawn(self.address, &self.url);
        self.until_ready().await;
    }
}

impl Drop for Replica {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// A client that uses the next server if a connection is refused, and records every other failure.
struct Client {
    http: reqwest::Client,
    addresses: Vec<SocketAddr>,
    failures: Arc<Mutex<Vec<String>>>,
    refused: Arc<AtomicUsize>,
    cut: Arc<AtomicUsize>,
}

/// Limit of requests that may meet the close of their connection, of some thousands.
const RARE: usize = 10;

impl Client {
    async fn post(&self, mut at: usize, path: &str, body: &Value) -> Option<Value> {
        let once = format!("{:032x}", rand::random::<u128>());
        loop {
            let url = format!("http://{}{path}", self.addresses[at % self.addresses.len()]);
            match self.http.post(url).header("idempotency-key", &once).json(body).send().await {
                Ok(response) => {
                    let status = response.status();
                    match response.text().await {
                        Ok(text) if status.is_success() => return serde_json::from_str(&text).ok(),
                        Ok(text) => self.failures.lock().unwrap().push(format!("{path} {status} {text}")),
                        Err(error) => self.failures.lock().unwrap().push(format!("{path} {error:?}")),
                    }
                    return None;
                }
                Err(error) if error.is_connect() => {
                    self.refused.fetch_add(1, Ordering::Relaxed);
                    at += 1;
                }
                Err(_) => {
                    self.cut.fetch_add(1, Ordering::Relaxed);
                    at += 1;
                }
            }
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn rolling_restart_of_three_servers_loses_no_task_and_fails_no_request() {
    let redis = OwnRedis::single(&[]).await;
    let url = redis.url.clone();
    let mut fixture = Fixture::on(redis, url.clone(), |written| written.shards = Some(1)).await;
    fixture.stop_servers().await;
    let mut replicas = Vec::new();
    for _ in 0..3 {
        replicas.push(Replica::start(&url).await);
    }
    let client = Arc::new(Client {
        // Shorter than the servers' drain time: an idle connection is used in time to learn that it closes, or the
        // client closes it. Otherwise a request may meet the close of its connection.
        http: reqwest::Client::builder().no_proxy().pool_idle_timeout(Duration::from_millis(200)).build().unwrap(),
        addresses: replicas.iter().map(|replica| replica.address).collect(),
        failures: Arc::default(),
        refused: Arc::default(),
        cut: Arc::default(),
    });
    let over = Arc::new(AtomicBool::new(false));

    let producers: Vec<_> = (0..4)
        .map(|own| {
            let (client, over) = (client.clone(), over.clone());
            tokio::spawn(async move {
                let mut ids = Vec::new();
                for number in 0.. {
                    if over.load(Ordering::Relaxed) {
                        break;
                    }
                    let task = client.post(own + number, "/tasks", &json!({"queue": "q", "payload": number})).await;
                    ids.extend(task.map(|task| text(&task["id"]).to_owned()));
                }
                ids
            })
        })
        .collect();
    let workers: Vec<_> = (0..6)
        .map(|own| {
            let (client, over) = (client.clone(), over.clone());
            tokio::spawn(async move {
                let mut done = Vec::new();
                for turn in 0.. {
                    let body = json!({"queues": ["q"], "wait_ms": 2000, "max": 5, "lease_ms": 5000});
                    let tasks = client.post(own + turn, "/claim", &body).await.unwrap_or_default();
                    let tasks = tasks["tasks"].as_array().cloned().unwrap_or_default();
                    if tasks.is_empty() && over.load(Ordering::Relaxed) {
                        break;
                    }
                    for task in tasks {
                        let body = json!({"id": task["id"], "lease": task["lease"]});
                        if client.post(own + turn, "/complete", &body).await.is_some() {
                            done.push(text(&task["id"]).to_owned());
                        }
                    }
                }
                done
            })
        })
        .collect();

    for _ in 0..2 {
        for replica in &mut replicas {
            replica.restart().await;
        }
    }
    over.store(true, Ordering::Relaxed);
    let mut submitted = BTreeSet::new();
    for producer in producers {
        submitted.extend(producer.await.expect("no panic"));
    }
    let mut completed = Vec::new();
    for worker in workers {
        completed.extend(worker.await.expect("no panic"));
    }

    let failures = client.failures.lock().unwrap().clone();
    assert!(failures.is_empty(), "{} failed, the first: {}", failures.len(), failures[0]);
    let cut = client.cut.load(Ordering::Relaxed);
    assert!(cut <= RARE, "{cut} requests met the close of their connection");
    assert!(client.refused.load(Ordering::Relaxed) > 0, "no connection was refused: the servers were never down");
    assert_eq!(completed.len(), submitted.len(), "each task is completed once");
    assert_eq!(completed.into_iter().collect::<BTreeSet<_>>(), submitted);
    drop(replicas);
    fixture.end().await;
}
