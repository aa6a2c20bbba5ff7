//! 400 slow clients against a server in its own process with the default limits: the time until they are disconnected,
//! and the effect on a working client.

use std::time::{Duration, Instant};

use futures_util::future::join_all;
use serde_json::json;

use crate::server::Server;
use crate::support::raw_client::{Raw, get, post};
use crate::support::redis::OwnRedis;
use crate::support::{Http, report};

const EACH: usize = 100;
const BASELINE: Duration = Duration::from_secs(20);
const PAUSE: Duration = Duration::from_secs(1);

pub async fn measure() {
    let redis = OwnRedis::single(&[]).await;
    let server = Server::start(&redis, &[]).await;
    let http = server.http.clone();
    let mut baseline = Vec::new();
    let _ = tokio::time::timeout(BASELINE, work(&http, &mut baseline)).await;
    let mut loaded = Vec::new();
    let kinds = tokio::select! {
        kinds = slow_clients(&http) => kinds,
        () = work(&http, &mut loaded) => unreachable!(),
    };
    for (name, mut closed) in kinds {
        closed.sort();
        println!(
            "{EACH} {name}: the first closed after {:.1} s, the last after {:.1} s",
            closed[0].as_secs_f64(),
            closed[EACH - 1].as_secs_f64()
        );
    }
    print_latencies("alone", &mut baseline);
    print_latencies("beside them", &mut loaded);
    drop(server);
}

/// Submits, claims and completes in a loop, and records the duration of each request.
async fn work(http: &Http, took: &mut Vec<Duration>) {
    let mut timed = async |path: &str, body: serde_json::Value| {
        let begun = Instant::now();
        let answer = http.post(path, &body).await;
        took.push(begun.elapsed());
        assert!(answer.status < 300, "{}", answer.text);
        answer.json()
    };
    loop {
        timed("/tasks", json!({"payload": 1})).await;
        let claimed = timed("/claim", json!({})).await;
        timed("/complete", report(&claimed["tasks"][0])).await;
    }
}

fn print_latencies(name: &str, latencies: &mut [Duration]) {
    latencies.sort();
    let percentile = |share: f64| latencies[((latencies.len() - 1) as f64 * share) as usize].as_secs_f64() * 1000.0;
    println!(
        "a client that works, {name}: {} requests, p50 {:.2} ms, p99 {:.2} ms, at most {:.2} ms",
        latencies.len(),
        percentile(0.5),
        percentile(0.99),
        percentile(1.0)
    );
}

/// Returns the times until the connections were closed, by kind: from opening, from the first slow byte, or from the
/// response.
async fn slow_clients(http: &Http) -> Vec<(&'static str, Vec<Duration>)> {
    let connect = || Raw::connect(http.address);
    let silent = join_all((0..EACH).map(async |_| connect().await.closed().await));
    let heads = join_all((0..EACH).map(async |_| {
        let mut raw = connect().await;
        raw.dribble(&get(&format!("/{}", "x".repeat(1000))), PAUSE).await;
        assert_eq!(raw.answer().await.expect("an answer").status, 408);
        raw.closed().await
    }));
    let bodies = join_all((0..EACH).map(async |_| {
        let mut raw = connect().await;
        let request = post("/tasks", &" ".repeat(5000));
        let (head, body) = request.split_once("\r\n\r\n").expect("a head");
        raw.send(&format!("{head}\r\n\r\n")).await;
        raw.dribble(body, PAUSE).await;
        assert_eq!(raw.answer().await.expect("an answer").status, 408);
        raw.closed().await
    }));
    let idle = join_all((0..EACH).map(async |_| {
        let mut raw = connect().await;
        raw.send(&get("/livez")).await;
        assert_eq!(raw.answer().await.expect("an answer").status, 200);
        raw.closed().await
    }));
    let (silent, heads, bodies, idle) = tokio::join!(silent, heads, bodies, idle);
    vec![("silent", silent), ("header by byte", heads), ("body by byte", bodies), ("idle after a request", idle)]
}
