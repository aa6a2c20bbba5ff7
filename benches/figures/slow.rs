//! Four hundred slow clients against a server of its own process with the bounds as they are: when they are closed, and
//! what a client that works sees of them.

use std::time::{Duration, Instant};

use futures_util::future::join_all;
use serde_json::json;

use crate::server::Server;
use crate::support::raw::{Raw, get, post};
use crate::support::redis::OwnRedis;
use crate::support::{Http, report};

const EACH: usize = 100;
const QUIET: Duration = Duration::from_secs(20);
const PAUSE: Duration = Duration::from_secs(1);

pub async fn measure() {
    let redis = OwnRedis::single(&[]).await;
    let server = Server::start(&redis, &[]).await;
    let http = server.http.clone();
    let mut quiet = Vec::new();
    let _ = tokio::time::timeout(QUIET, work(&http, &mut quiet)).await;
    let mut disturbed = Vec::new();
    let kinds = tokio::select! {
        kinds = slow_clients(&http) => kinds,
        () = work(&http, &mut disturbed) => unreachable!(),
    };
    for (name, mut closed) in kinds {
        closed.sort();
        println!(
            "{EACH} {name}: the first closed after {:.1} s, the last after {:.1} s",
            closed[0].as_secs_f64(),
            closed[EACH - 1].as_secs_f64()
        );
    }
    show("alone", &mut quiet);
    show("beside them", &mut disturbed);
    drop(server);
}

/// Submits, claims and completes, one after another, for ever; how long each request took.
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

fn show(name: &str, took: &mut [Duration]) {
    took.sort();
    let at = |share: f64| took[((took.len() - 1) as f64 * share) as usize].as_secs_f64() * 1000.0;
    println!(
        "a client that works, {name}: {} requests, p50 {:.2} ms, p99 {:.2} ms, at most {:.2} ms",
        took.len(),
        at(0.5),
        at(0.99),
        at(1.0)
    );
}

/// When they were closed, by kind: from the opening, or from the first byte of what is slow, or from the answer.
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
