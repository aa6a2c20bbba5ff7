//! Effects of Redis faults on clients: a server in its own process, 50 submits per second, and a fault.

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use deadpool_redis::redis::{Client, cmd};
use serde_json::json;
use tokio::time::{interval, sleep};

use crate::median;
use crate::server::Server;
use crate::support::redis::OwnRedis;
use crate::support::{report, text};

/// A request: time of sending, duration, status.
type RequestOutcome = (Instant, Duration, u16);

/// Sends 50 submits per second until `stop`.
async fn submit_steadily(server: &Server, stop: Arc<AtomicBool>) -> Vec<RequestOutcome> {
    let mut ticks = interval(Duration::from_millis(20));
    let mut requests = Vec::new();
    while !stop.load(Ordering::Relaxed) {
        ticks.tick().await;
        let http = server.http.clone();
        requests.push(tokio::spawn(async move {
            let sent = Instant::now();
            let answer = http.post("/tasks", &json!({"queue": "q", "payload": 1})).await;
            (sent, sent.elapsed(), answer.status)
        }));
    }
    let mut outcomes = Vec::new();
    for request in requests {
        outcomes.push(request.await.unwrap());
    }
    outcomes
}

/// Prints the outcomes of the load during `fault` and three seconds after.
async fn measure_under_load(name: &str, server: &Server, fault: impl Future<Output = ()>) {
    let stop = Arc::new(AtomicBool::new(false));
    let inject = async {
        sleep(Duration::from_secs(1)).await;
        fault.await;
        let recovered_at = Instant::now();
        sleep(Duration::from_secs(3)).await;
        stop.store(true, Ordering::Relaxed);
        recovered_at
    };
    let (outcomes, recovered_at) = tokio::join!(submit_steadily(server, stop.clone()), inject);
    let unavailable: Vec<&RequestOutcome> = outcomes.iter().filter(|(_, _, status)| *status == 503).collect();
    let other = outcomes.iter().filter(|(_, _, status)| *status != 503 && *status != 201).count();
    let slowest = outcomes.iter().map(|(_, took, _)| *took).max().unwrap_or_default();
    let fast = unavailable.iter().filter(|(_, took, _)| *took < Duration::from_millis(50)).count();
    let last = unavailable.iter().map(|(sent, took, _)| *sent + *took).max();
    let recovery_ms = last.map_or(0.0, |last| last.saturating_duration_since(recovered_at).as_secs_f64() * 1000.0);
    println!(
        "{name}: {} submits, {} answered 503 ({fast} of them within 50 ms), {other} otherwise; the slowest answer took \
         {:.0} ms; the last 503 came {recovery_ms:.0} ms after it was over",
        outcomes.len(),
        unavailable.len(),
        slowest.as_secs_f64() * 1000.0
    );
}

pub async fn measure() {
    let mut redis = OwnRedis::single(&["--appendfsync", "everysec"]).await;
    let server = Server::start(&redis, &[]).await;
    for seconds in [1, 5, 30] {
        let freeze = async {
            redis.freeze();
            sleep(Duration::from_secs(seconds)).await;
            redis.thaw();
        };
        measure_under_load(&format!("Redis frozen for {seconds} s"), &server, freeze).await;
    }
    for seconds in [1, 10] {
        let kill = async {
            redis.kill();
            sleep(Duration::from_secs(seconds)).await;
            redis.restart().await;
        };
        measure_under_load(&format!("Redis killed, started again after {seconds} s"), &server, kill).await;
    }
    let client = Client::open(redis.url.as_str()).unwrap();
    let mut connection = client.get_multiplexed_async_connection().await.unwrap();
    let flush = async {
        let began = Instant::now();
        while began.elapsed() < Duration::from_secs(5) {
            cmd("SCRIPT").arg("FLUSH").exec_async(&mut connection).await.unwrap();
        }
    };
    measure_under_load("SCRIPT FLUSH in a loop for 5 s", &server, flush).await;
    measure_greedy_key(&server).await;
    measure_pubsub_cuts(&server, &redis).await;
}

/// Effect of one key with 20,000 ready tasks on other keys: four workers, a task of another key every 10 ms, and the
/// time from its submit to its delivery.
async fn measure_greedy_key(server: &Server) {
    let mut figures = Vec::new();
    for (queue, backlog) in [("alone", 0), ("beside", 20_000)] {
        let tasks: Vec<_> = (0..1000).map(|_| json!({"queue": queue, "key": "greedy"})).collect();
        for _ in 0..backlog / 1000 {
            server.http.post("/tasks/batch", &json!({"tasks": tasks})).await.expect(200);
        }
        let held: Arc<Mutex<HashMap<String, Instant>>> = Arc::default();
        let workers: Vec<_> = (0..4)
            .map(|_| {
                let (http, held) = (server.http.clone(), held.clone());
                tokio::spawn(async move {
                    loop {
                        let answer = http.post("/claim", &json!({"queues": [queue], "wait_ms": 10_000})).await;
                        for task in answer.expect(200)["tasks"].as_array().unwrap() {
                            held.lock().unwrap().insert(text(&task["id"]).to_owned(), Instant::now());
                            http.post("/complete", &report(task)).await.expect(200);
                        }
                    }
                })
            })
            .collect();
        let mut sent = Vec::new();
        let mut ticks = interval(Duration::from_millis(10));
        for number in 0..500 {
            ticks.tick().await;
            let sent_at = Instant::now();
            let task = server.http.post("/tasks", &json!({"queue": queue, "key": format!("k{number}")})).await;
            sent.push((text(&task.expect(201)["id"]).to_owned(), sent_at));
        }
        let all_held = |held: &HashMap<String, Instant>| sent.iter().all(|(id, _)| held.contains_key(id));
        while !all_held(&held.lock().unwrap()) {
            sleep(Duration::from_millis(10)).await;
        }
        workers.iter().for_each(tokio::task::JoinHandle::abort);
        let held = held.lock().unwrap();
        let mut latencies: Vec<f64> = sent.iter().map(|(id, at)| (held[id] - *at).as_secs_f64() * 1000.0).collect();
        let middle = median(&mut latencies);
        figures.push(format!("{queue} p50 {middle:.1} ms, p99 {:.1} ms", latencies[latencies.len() * 99 / 100]));
    }
    println!("one greedy key, 500 tasks of other keys: {}", figures.join("; "));
}

/// Cuts the pub/sub connections every 100 ms, so that wake-ups are late or lost.
async fn measure_pubsub_cuts(server: &Server, redis: &OwnRedis) {
    let client = Client::open(redis.url.as_str()).unwrap();
    let mut connection = client.get_multiplexed_async_connection().await.unwrap();
    let cutter = tokio::spawn(async move {
        loop {
            let _: i64 =
                cmd("CLIENT").arg("KILL").arg("TYPE").arg("pubsub").query_async(&mut connection).await.unwrap();
            sleep(Duration::from_millis(100)).await;
        }
    });
    let mut latencies = Vec::new();
    for round in 0..100 {
        let queue = format!("cut{round}");
        let (http, body) = (server.http.clone(), json!({"queues": [queue], "wait_ms": 30_000}));
        let waiting = tokio::spawn(async move {
            let answer = http.post("/claim", &body).await.expect(200);
            (Instant::now(), answer["tasks"].as_array().unwrap().len())
        });
        sleep(Duration::from_millis(50)).await;
        let sent = Instant::now();
        server.http.post("/tasks", &json!({"queue": queue})).await.expect(201);
        let (received_at, tasks) = waiting.await.unwrap();
        assert_eq!(tasks, 1);
        latencies.push(received_at.duration_since(sent).as_secs_f64() * 1000.0);
    }
    cutter.abort();
    let middle = median(&mut latencies);
    println!(
        "pub/sub cut every 100 ms: 100 waiting claims got their task after {middle:.0} ms (median), {:.0} ms at most; \
         the poll interval is 1500 ms",
        latencies[99]
    );
}
