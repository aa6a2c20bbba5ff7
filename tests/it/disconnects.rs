//! A disconnected client holds no task. Each test prints how soon another client can claim the task.

use std::net::SocketAddr;
use std::time::Instant;

use bytes::Bytes;
use deadpool_redis::redis::cmd;
use http_body_util::{BodyExt as _, Full};
use hyper::client::conn::http2;
use hyper_util::rt::{TokioExecutor, TokioIo};
use serde_json::{Value, json};
use slotwheel::config::RawLimits;
use tokio::net::TcpStream;

use crate::support::raw_client::{Raw, get, post};
use crate::support::{Fixture, report};

/// Its lease outlasts each wait here: another client gets the task only if it was released.
const POLL: &str = r#"{"queues":["q"],"wait_ms":60000,"lease_ms":600000}"#;
/// Its lease expires soon, for a client whose task is not released.
const SHORT_POLL: &str = r#"{"queues":["q"],"wait_ms":60000,"lease_ms":1000}"#;

/// Returns a connection with a long poll that is in the wait queue.
async fn poll(fixture: &Fixture, body: &str) -> Raw {
    let mut raw = Raw::connect(fixture.http.address).await;
    raw.send(&post("/claim", body)).await;
    until_queued(fixture).await;
    raw
}

/// Returns when all earlier claims are in the wait queue: a later claim is answered after them.
async fn until_queued(fixture: &Fixture) {
    assert!(fixture.claim_now("q", 1).await.is_empty());
}

/// Submits a task, and checks that another client claims it before its lease expires and that no attempt is counted.
async fn check(fixture: &Fixture, name: &str) {
    let started_at = Instant::now();
    let id = fixture.submit("q", json!(1)).await["id"].clone();
    let claimed = fixture.claim_one("q").await;
    eprintln!("client {name}: another claims the task {:.1} ms after its submit", ms(started_at));
    assert_eq!(claimed["id"], id);
    assert_eq!(fixture.task(&id).await["attempts"], 0);
}

fn ms(started_at: Instant) -> f64 {
    started_at.elapsed().as_secs_f64() * 1000.0
}

#[tokio::test]
async fn closed_connection_loses_no_task() {
    let fixture = Fixture::start().await;
    drop(poll(&fixture, POLL).await);
    check(&fixture, "with a closed connection").await;
    fixture.end().await;
}

#[tokio::test]
async fn reset_connection_loses_no_task() {
    let fixture = Fixture::start().await;
    let raw = poll(&fixture, POLL).await;
    raw.stream.set_zero_linger().unwrap();
    drop(raw);
    check(&fixture, "with a reset connection").await;
    fixture.end().await;
}

#[tokio::test]
async fn half_closed_connection_loses_no_task() {
    let fixture = Fixture::start().await;
    let mut raw = poll(&fixture, POLL).await;
    raw.shut().await;
    check(&fixture, "with a half-closed connection").await;
    raw.closed().await;
    fixture.end().await;
}

#[tokio::test]
async fn half_closed_connection_gets_each_response_that_needs_no_wait() {
    let fixture = Fixture::start().await;
    let body = "x".repeat(100_000);
    for number in 0..20 {
        let mut raw = Raw::connect(fixture.http.address).await;
        let submit = format!(r#"{{"queue":"q","payload":"{body}","headers":{{"n":"{number}"}}}}"#);
        raw.send(&format!("{}{}", post("/tasks", &submit), post("/claim", r#"{"queues":["q"]}"#))).await;
        raw.shut().await;
        raw.answer().await.expect("the submit is answered").expect(201);
        let task = raw.answer().await.expect("the claim is answered").expect(200)["tasks"][0].clone();
        raw.closed().await;
        assert_eq!(task["headers"]["n"], number.to_string());
        fixture.http.post("/complete", &report(&task)).await.expect(200);
    }
    fixture.end().await;
}

#[tokio::test]
async fn half_closed_connection_ends_an_event_stream_and_a_wait_for_a_task() {
    let fixture = Fixture::start().await;
    let id = fixture.submit("q", json!(1)).await["id"].clone();
    let wait = format!("/tasks/{}?wait_ms=60000", id.as_str().unwrap());
    for path in [wait.as_str(), "/events"] {
        let mut raw = Raw::connect(fixture.http.address).await;
        raw.send(&get(path)).await;
        until_waiting(&fixture, 1).await;
        raw.shut().await;
        until_waiting(&fixture, 0).await;
    }
    fixture.end().await;
}

#[tokio::test]
async fn closed_connection_with_pipelined_requests_loses_no_task() {
    let fixture = Fixture::start().await;
    // Pipelined requests that fit into the read buffer or exceed it, sent with the poll or later.
    for (more, later) in [(1, false), (1, true), (2000, false), (2000, true)] {
        let pipelined = get("/livez").repeat(more);
        let mut raw = Raw::connect(fixture.http.address).await;
        raw.send(&post("/claim", POLL)).await;
        if later {
            until_queued(&fixture).await;
        }
        raw.send(&pipelined).await;
        until_queued(&fixture).await;
        drop(raw);
        check(&fixture, &format!("with a closed connection and {more} pipelined requests")).await;
    }
    // A client that stays gets its responses in order.
    let mut raw = poll(&fixture, POLL).await;
    raw.send(&get("/livez").repeat(50)).await;
    let id = fixture.submit("q", json!(1)).await["id"].clone();
    assert_eq!(raw.answer().await.unwrap().expect(200)["tasks"][0]["id"], id);
    for _ in 0..50 {
        raw.answer().await.unwrap().expect(200);
    }
    fixture.end().await;
}

/// Returns when the server reports `count` waiting requests. Needs no Redis, which may be frozen.
async fn until_waiting(fixture: &Fixture, count: usize) {
    let line = format!("slotwheel_waiting_requests {count}\n");
    fixture.until(|| async { fixture.http.get("/metrics").await.text.contains(&line).then_some(()) }).await;
}

#[tokio::test]
async fn connection_closed_during_its_claim_loses_no_task() {
    let fixture = Fixture::start().await;
    // Loads the script into Redis, so that the claim below sends it once.
    until_queued(&fixture).await;
    let id = fixture.submit("q", json!(1)).await["id"].clone();
    // Without a time of its last touch, the clock is confirmed: else Redis would refuse the claim as one of an outage.
    for shard in fixture.store().await.shards() {
        fixture.redis.ask::<()>(cmd("HDEL").arg(shard.keys.callers()).arg("clock")).await;
    }
    fixture.redis.freeze();
    let mut raw = Raw::connect(fixture.http.address).await;
    raw.send(&post("/claim", POLL)).await;
    until_waiting(&fixture, 1).await;
    drop(raw);
    until_waiting(&fixture, 0).await;

    // Redis executes the claim after its client has gone.
    fixture.redis.thaw();

    let claimed = fixture.claim_one("q").await;
    assert_eq!((&claimed["id"], &claimed["attempt"]), (&id, &json!(1)));
    fixture.end().await;
}

#[tokio::test]
async fn frozen_client_holds_its_task_until_the_lease_expires() {
    let fixture = Fixture::start().await;
    let raw = poll(&fixture, SHORT_POLL).await;
    let started_at = Instant::now();
    let id = fixture.submit("q", json!(1)).await["id"].clone();
    // The kernel accepts the response: the server cannot know that the client does not read it.
    fixture.until_state(&id, "leased").await;
    let claimed = fixture.claim_one("q").await;
    eprintln!(
        "frozen client: another claims the task {:.1} ms after its submit, at a lease of 1000 ms",
        ms(started_at)
    );
    assert_eq!((&claimed["id"], &claimed["attempt"]), (&id, &json!(2)), "the expired lease counts as an attempt");
    drop(raw);
    fixture.end().await;
}

#[tokio::test]
async fn reset_stream_loses_no_task() {
    let fixture = Fixture::start().await;
    let mut sender = http2(fixture.http.address).await;
    let poll = tokio::spawn(sender.send_request(request(&fixture, "/claim", POLL)));
    until_queued_over(&mut sender, &fixture).await;
    // The client library resets the stream of an aborted request.
    poll.abort();
    let _ = poll.await;
    until_queued_over(&mut sender, &fixture).await;
    check(&fixture, "with a reset HTTP/2 stream").await;
    // The connection serves other requests.
    let answer = sender.send_request(request(&fixture, "/tasks", "{}")).await.unwrap();
    assert_eq!(answer.status(), 201);
    fixture.end().await;
}

#[tokio::test]
async fn closed_connection_with_many_streams_loses_no_task() {
    let fixture = Fixture::with(|written| {
        written.limits = RawLimits { http2_max_streams: Some(5), ..RawLimits::default() };
    })
    .await;
    let mut sender = http2(fixture.http.address).await;
    let polls: Vec<_> = (0..4).map(|_| tokio::spawn(sender.send_request(request(&fixture, "/claim", POLL)))).collect();
    until_queued_over(&mut sender, &fixture).await;
    drop(sender);
    for poll in polls {
        poll.abort();
        let _ = poll.await;
    }
    check(&fixture, "with a closed HTTP/2 connection and four polls").await;
    fixture.end().await;
}

async fn http2(address: SocketAddr) -> http2::SendRequest<Full<Bytes>> {
    let stream = TcpStream::connect(address).await.unwrap();
    let (sender, connection) = http2::handshake(TokioExecutor::new(), TokioIo::new(stream)).await.unwrap();
    tokio::spawn(connection);
    sender
}

fn request(fixture: &Fixture, path: &str, body: &str) -> hyper::Request<Full<Bytes>> {
    hyper::Request::post(format!("http://{}{path}", fixture.http.address))
        .header("content-type", "application/json")
        .body(Full::from(body.to_owned()))
        .unwrap()
}

/// Does the same as [`until_queued`], over a later stream of the connection.
async fn until_queued_over(sender: &mut http2::SendRequest<Full<Bytes>>, fixture: &Fixture) {
    let answer = sender.send_request(request(fixture, "/claim", r#"{"queues":["q"]}"#)).await.unwrap();
    let bytes = answer.into_body().collect().await.unwrap().to_bytes();
    assert_eq!(serde_json::from_slice::<Value>(&bytes).unwrap(), json!({"tasks": []}));
}

#[tokio::test]
async fn disconnects_of_many_waiters_lose_no_task() {
    let fixture = Fixture::start().await;
    let mut too_late = 0;
    for round in 0..20 {
        let raw = poll(&fixture, SHORT_POLL).await;
        let submit = fixture.submit("q", json!(round));
        let (_, task) = tokio::join!(async { drop(raw) }, submit);
        // Whichever came first, another client can claim the task. An attempt is counted only if the response had been
        // sent before the disconnect: the lease of 1 s must then expire.
        let claimed: Value = fixture.claim_one("q").await;
        assert_eq!(claimed["id"], task["id"]);
        match claimed["attempt"].as_i64() {
            Some(1) => {}
            Some(2) => {
                let errors = &fixture.task(&task["id"]).await["errors"];
                assert_eq!(errors[0]["type"], "lease_expired");
                too_late += 1;
            }
            other => panic!("attempt {other:?}"),
        }
        fixture.http.post("/complete", &crate::support::report(&claimed)).await.expect(200);
    }
    assert!(too_late <= 10, "{too_late} of 20 responses were sent to disconnected clients");
    fixture.end().await;
}
