//! Requests over a limit are rejected with `Retry-After`, and leave nothing behind.

use std::time::Duration;

use futures_util::future::join_all;
use serde_json::json;
use slotwheel::config::{Limits, RawLimits};
use slotwheel::dispatch::Dispatch;
use slotwheel::spans::Spans;

use crate::support::raw_client::{Raw, get, post};
use crate::support::{Answer, Fixture, report, report_with};

async fn limited(limits: RawLimits) -> Fixture {
    Fixture::with(|written| written.limits = limits).await
}

#[track_caller]
fn check(answer: &Answer, code: &str) {
    assert_eq!(answer.problem(503).0, code);
    let seconds: u32 = answer.header("retry-after").expect("Retry-After").parse().unwrap();
    assert!((1..=3).contains(&seconds));
}

#[tokio::test]
async fn connections_beyond_the_limit_get_503_and_retry_after() {
    let fixture = limited(RawLimits { max_connections: Some(6), ..RawLimits::default() }).await;
    let mut held = Vec::new();
    // The fixture itself has one connection.
    for _ in 0..5 {
        let mut raw = Raw::connect(fixture.http.address).await;
        raw.send(&get("/livez")).await;
        raw.answer().await.unwrap().expect(200);
        held.push(raw);
    }
    let mut beyond = Raw::connect(fixture.http.address).await;
    let answer = beyond.answer().await.expect("a response without a request");
    check(&answer, "too_many_connections");
    assert_eq!(answer.header("connection"), Some("close"));
    beyond.closed().await;
    // Open connections are served, and a closed one makes room for another.
    held[0].send(&get("/livez")).await;
    held[0].answer().await.unwrap().expect(200);
    held.pop();
    serves_again(&fixture).await;
    fixture.end().await;
}

async fn serves_again(fixture: &Fixture) {
    fixture
        .until(|| async {
            let mut raw = Raw::connect(fixture.http.address).await;
            raw.send(&get("/livez")).await;
            (raw.answer().await?.status == 200).then_some(())
        })
        .await;
}

#[tokio::test]
async fn connections_of_an_address_beyond_its_limit_get_503_and_retry_after() {
    let fixture = limited(RawLimits { max_connections_per_address: Some(3), ..RawLimits::default() }).await;
    let held = join_all((0..2).map(|_| Raw::connect(fixture.http.address))).await;
    let mut beyond = Raw::connect(fixture.http.address).await;
    check(&beyond.answer().await.expect("an answer"), "too_many_connections");
    let socket = tokio::net::TcpSocket::new_v4().unwrap();
    socket.bind("127.0.0.2:0".parse().unwrap()).unwrap();
    let mut other = Raw::over(socket.connect(fixture.http.address).await.unwrap());
    other.send(&get("/livez")).await;
    other.answer().await.unwrap().expect(200);
    drop(held);
    serves_again(&fixture).await;
    fixture.end().await;
}

/// Returns `count` connections, each with a long poll in the wait queue.
async fn polls(fixture: &Fixture, count: usize) -> Vec<Raw> {
    let mut polls = Vec::new();
    for _ in 0..count {
        let mut raw = Raw::connect(fixture.http.address).await;
        raw.send(&post("/claim", r#"{"queues":["q"],"wait_ms":60000}"#)).await;
        assert!(fixture.claim_now("q", 1).await.is_empty());
        polls.push(raw);
    }
    polls
}

#[tokio::test]
async fn waiting_requests_beyond_the_limit_get_503_and_retry_after() {
    let fixture = limited(RawLimits { max_waiting_requests: Some(3), ..RawLimits::default() }).await;
    let http = &fixture.http;
    let task = fixture.submit("other", json!(1)).await;
    let waiting = polls(&fixture, 3).await;
    let wait = json!({"queues": ["empty"], "wait_ms": 60_000});
    check(&http.post("/claim", &wait).await, "too_many_waiting");
    let path = format!("/tasks/{}", crate::support::text(&task["id"]));
    check(&http.get(&format!("{path}?wait_ms=60000")).await, "too_many_waiting");
    // Requests that need not wait are served: a claim without wait_ms, a claim with a ready task, an ended task.
    http.post("/claim", &json!({"queues": ["empty"]})).await.expect(200);
    let claimed = fixture.claim_one("other").await;
    assert_eq!(claimed["id"], task["id"]);
    // A completion takes effect even if the claim in the same request is rejected.
    let done = http.post("/complete", &report_with(&claimed, json!({"claim": wait}))).await.expect(200);
    assert_eq!((&done["state"], &done["tasks"]), (&json!("completed"), &json!([])));
    assert_eq!(http.get(&format!("{path}?wait_ms=60000")).await.expect(200)["state"], "completed");

    // Each way for a wait to end makes room: the client disconnects, gets a task, or its wait_ms is over.
    let mut waiting = waiting.into_iter();
    drop(waiting.next());
    let short = json!({"queues": ["empty"], "wait_ms": 1});
    fixture.until(|| async { (http.post("/claim", &short).await.status == 200).then_some(()) }).await;
    http.post("/claim", &short).await.expect(200);
    let more = fixture.submit("q", json!(2)).await;
    let mut served = waiting.next().unwrap();
    let got = served.answer().await.unwrap().expect(200)["tasks"][0].clone();
    assert_eq!(got["id"], more["id"]);
    http.post("/complete", &report(&got)).await.expect(200);
    let again = polls(&fixture, 2).await;
    check(&http.post("/claim", &wait).await, "too_many_waiting");
    drop((again, waiting, served));
    fixture.end().await;
}

#[tokio::test]
async fn waiting_requests_are_counted() {
    let fixture = Fixture::start().await;
    let (tasks, stop) = (tokio_util::task::TaskTracker::new(), tokio_util::sync::CancellationToken::new());
    let limits = Limits { max_waiting_requests: 1, ..fixture.config.limits.clone() };
    let poll_interval = Duration::from_millis(100);
    let dispatch = Dispatch::start(fixture.store().await, poll_interval, &limits, Spans::default(), &tasks, &stop);
    let request = slotwheel::dispatch::ClaimRequest {
        queues: vec![slotwheel::domain::queue::QueueName::default_queue()],
        max: 1,
        lease_ms: 1000,
        worker: "w".into(),
        claim_id: None,
    };
    {
        let mut waiting = std::pin::pin!(dispatch.claim(request.clone(), Duration::from_secs(60)));
        assert!(futures_util::poll!(waiting.as_mut()).is_pending());
        assert_eq!((dispatch.poll_limit().waiting(), dispatch.poll_limit().rejected()), (1, 0));
        dispatch.claim(request, Duration::from_secs(60)).await.expect_err("the limit is 1");
        assert_eq!((dispatch.poll_limit().waiting(), dispatch.poll_limit().rejected()), (1, 1));
    }
    assert_eq!(dispatch.poll_limit().waiting(), 0, "a dropped claim returns its permit");
    stop.cancel();
    drop(dispatch);
    tasks.close();
    tasks.wait().await;
    fixture.end().await;
}

#[tokio::test]
async fn bodies_beyond_their_memory_get_503_and_retry_after() {
    let fixture = limited(RawLimits { max_body_memory_bytes: Some(8 * 1024 * 1024), ..RawLimits::default() }).await;
    let mib = 1024 * 1024;
    let head = |length: usize| {
        let request = post("/tasks", &" ".repeat(length));
        request.split_once("\r\n\r\n").unwrap().0.to_owned() + "\r\n\r\n"
    };
    // All but the last byte of 8 bodies, which fill the memory.
    let mut held = Vec::new();
    for _ in 0..8 {
        let mut raw = Raw::connect(fixture.http.address).await;
        raw.send(&head(mib)).await;
        raw.send(&" ".repeat(mib - 1)).await;
        held.push(raw);
    }
    // A body with a length is rejected before it is sent; a chunked body is rejected at the limit.
    fixture
        .until(|| async {
            let mut raw = Raw::connect(fixture.http.address).await;
            raw.send(&head(mib)).await;
            let answer = tokio::time::timeout(Duration::from_millis(100), raw.answer()).await.ok()??;
            check(&answer, "overloaded");
            assert_eq!(answer.header("connection"), Some("close"));
            raw.closed().await;
            Some(())
        })
        .await;
    let mut raw = Raw::connect(fixture.http.address).await;
    raw.send("POST /tasks HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\ntransfer-encoding: chunked\r\n\r\n")
        .await;
    raw.send(&format!("10000\r\n{}\r\n", " ".repeat(0x10000))).await;
    check(&raw.answer().await.unwrap(), "overloaded");
    // Requests without a body are served.
    fixture.http.get("/queues").await.expect(200);
    let mut first = held.remove(0);
    first.send(" ").await;
    assert_eq!(first.answer().await.unwrap().status, 400);
    held.clear();
    fixture.until(|| async { (fixture.http.post("/tasks", &json!({})).await.status == 201).then_some(()) }).await;
    // Bodies that are announced and not sent reserve no memory.
    let mut silent = Vec::new();
    for _ in 0..20 {
        let mut raw = Raw::connect(fixture.http.address).await;
        raw.send(&head(mib)).await;
        silent.push(raw);
    }
    fixture.http.post("/tasks", &json!({"payload": "x".repeat(200_000)})).await.expect(201);
    drop(silent);
    fixture.end().await;
}

#[tokio::test]
async fn body_over_its_limit_is_rejected_before_it_is_sent() {
    let fixture = Fixture::start().await;
    for (path, length) in [("/tasks", 1024 * 1024 + 1), ("/tasks/batch", 8 * 1024 * 1024 + 1), ("/tasks", 1_u64 << 50)]
    {
        for expect in ["", "expect: 100-continue\r\n"] {
            let mut raw = Raw::connect(fixture.http.address).await;
            let head = format!("POST {path} HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\n{expect}");
            raw.send(&format!("{head}content-length: {length}\r\n\r\n")).await;
            let answer = raw.answer().await.unwrap();
            assert_eq!(answer.problem(413).0, "body_too_large");
            assert_eq!(answer.header("connection"), Some("close"));
            raw.closed().await;
        }
    }
    fixture.end().await;
}
