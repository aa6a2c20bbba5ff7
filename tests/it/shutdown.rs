//! A stopping server reports it, finishes requests in progress, answers waiting requests, and exits within its timeout.

use std::time::{Duration, Instant};

use bytes::Bytes;
use http_body_util::{BodyExt as _, Full};
use hyper_util::rt::{TokioExecutor, TokioIo};
use serde_json::{Value, json};
use slotwheel::config::RawLimits;
use tokio::net::{TcpSocket, TcpStream};

use deadpool_redis::redis::cmd;

use crate::support::Fixture;
use crate::support::raw_client::{Raw, get, post};

#[tokio::test]
async fn waiters_are_answered_requests_finished_and_idle_connections_closed() {
    let mut fixture = Fixture::start().await;
    let address = fixture.http.address;
    let (mut silent, mut idle) = (Raw::connect(address).await, Raw::connect(address).await);
    idle.send(&get("/livez")).await;
    idle.answer().await.unwrap().expect(200);
    let mut waiting = Raw::connect(address).await;
    waiting.send(&post("/claim", r#"{"queues":["q"],"wait_ms":60000}"#)).await;
    let task = fixture.submit("other", json!(1)).await;
    let mut watching = Raw::connect(address).await;
    watching.send(&get(&format!("/tasks/{}?wait_ms=60000", crate::support::text(&task["id"])))).await;
    let request = post("/tasks", r#"{"queue":"late"}"#);
    let mut half_a_head = Raw::connect(address).await;
    half_a_head.send(&request[..30]).await;
    let mut half_a_body = Raw::connect(address).await;
    half_a_body.send(&request[..request.len() - 5]).await;
    fixture.claim_now("q", 1).await;

    let started_at = Instant::now();
    fixture.tell_to_stop();
    let answer = waiting.answer().await.unwrap();
    assert_eq!((answer.expect(200), answer.header("connection")), (json!({"tasks": []}), Some("close")));
    let answer = watching.answer().await.unwrap();
    assert_eq!((&answer.expect(200)["state"], answer.header("connection")), (&json!("ready"), Some("close")));
    idle.closed().await;
    silent.closed().await;
    half_a_head.send(&request[30..]).await;
    half_a_body.send(&request[request.len() - 5..]).await;
    for raw in [&mut half_a_head, &mut half_a_body] {
        let answer = raw.answer().await.unwrap();
        assert_eq!((answer.status, answer.header("connection")), (201, Some("close")));
        raw.closed().await;
    }
    waiting.closed().await;
    watching.closed().await;
    drop((silent, idle, waiting, watching, half_a_head, half_a_body));
    fixture.stop_servers().await;
    assert!(started_at.elapsed() < Duration::from_secs(9), "{:?}", started_at.elapsed());
    TcpStream::connect(address).await.expect_err("the listener is closed");
    fixture.end().await;
}

/// Whether the server has a pub/sub connection to Redis.
async fn is_subscribed(fixture: &Fixture) -> bool {
    let clients: String = fixture.redis.ask(cmd("CLIENT").arg("LIST").arg("TYPE").arg("PUBSUB")).await;
    !clients.trim().is_empty()
}

#[tokio::test]
async fn stopped_server_accepts_no_connection() {
    let mut fixture = Fixture::start().await;
    fixture.until(|| async { is_subscribed(&fixture).await.then_some(()) }).await;
    fixture.stop_servers().await;
    fixture.until(|| async { (!is_subscribed(&fixture).await).then_some(()) }).await;
    fixture.end().await;
}

#[tokio::test]
async fn draining_server_serves_requests_and_reports_not_ready() {
    let mut fixture = Fixture::with(|written| written.drain_ms = Some(2000)).await;
    let address = fixture.http.address;
    let mut waiting = Raw::connect(address).await;
    waiting.send(&post("/claim", r#"{"queues":["q"],"wait_ms":60000}"#)).await;
    fixture.claim_now("q", 1).await;

    let started_at = Instant::now();
    fixture.tell_to_stop();
    assert_eq!(fixture.http.get("/readyz").await.problem(503).0, "stopping");
    let answer = fixture.http.post("/tasks", &json!({"queue": "q"})).await;
    assert_eq!(answer.header("connection"), Some("close"));
    let id = answer.expect(201)["id"].clone();
    let answer = waiting.answer().await.unwrap();
    assert_eq!((&answer.expect(200)["tasks"][0]["id"], answer.header("connection")), (&id, Some("close")));
    let mut last = Raw::connect(address).await;
    last.send(&post("/claim", r#"{"queues":["q"],"wait_ms":60000}"#)).await;
    let answer = last.answer().await.unwrap();
    assert_eq!(answer.expect(200), json!({"tasks": []}));
    assert!(started_at.elapsed() >= Duration::from_secs(2), "the long poll lasts until the end of draining");
    drop((waiting, last));
    fixture.stop_servers().await;
    assert!(started_at.elapsed() < Duration::from_secs(11), "{:?}", started_at.elapsed());
    fixture.end().await;
}

#[tokio::test]
async fn http2_connection_gets_goaway_and_finishes_its_requests() {
    let mut fixture = Fixture::start().await;
    let stream = TcpStream::connect(fixture.http.address).await.unwrap();
    let (mut sender, connection) =
        hyper::client::conn::http2::handshake(TokioExecutor::new(), TokioIo::new(stream)).await.unwrap();
    let connection = tokio::spawn(connection);
    let request = |body: &str| {
        hyper::Request::post(format!("http://{}/claim", fixture.http.address))
            .header("content-type", "application/json")
            .body(Full::<Bytes>::from(body.to_owned()))
            .unwrap()
    };
    let waiting = tokio::spawn(sender.send_request(request(r#"{"queues":["q"],"wait_ms":60000}"#)));
    let later = sender.send_request(request(r#"{"queues":["q"]}"#)).await.unwrap();
    assert_eq!(later.status(), 200);
    drop(later);

    fixture.tell_to_stop();
    let answer = waiting.await.unwrap().unwrap();
    assert_eq!(answer.status(), 200);
    let body = answer.into_body().collect().await.unwrap().to_bytes();
    assert_eq!(serde_json::from_slice::<Value>(&body).unwrap(), json!({"tasks": []}));
    // The sender still exists, so the server has closed the connection.
    connection.await.unwrap().expect("an orderly end");
    sender.ready().await.expect_err("no more requests");
    fixture.stop_servers().await;
    fixture.end().await;
}

#[tokio::test]
async fn shutdown_ends_within_its_timeout_though_a_client_never_reads() {
    let mut fixture = Fixture::with(|written| written.shutdown_timeout_ms = Some(1500)).await;
    let tasks = vec![json!({"queue": "q", "payload": "x".repeat(250_000)}); 25];
    fixture.http.post("/tasks/batch", &json!({"tasks": tasks})).await.expect(200);
    let socket = TcpSocket::new_v4().unwrap();
    socket.set_recv_buffer_size(4096).unwrap();
    let mut raw = Raw::over(socket.connect(fixture.http.address).await.unwrap());
    raw.send(&get("/tasks?queue=q&state=ready&limit=100").repeat(5)).await;
    let mut half = Raw::connect(fixture.http.address).await;
    half.send("POST /tasks HTTP/1.1\r\n").await;
    raw.stream.readable().await.unwrap();

    let started_at = Instant::now();
    fixture.stop_servers().await;
    let elapsed = started_at.elapsed();
    assert!((Duration::from_secs(1)..Duration::from_secs(8)).contains(&elapsed), "{elapsed:?}");
    drop((raw, half));
    fixture.end().await;
}

#[tokio::test]
async fn http2_connection_beyond_its_age_gets_goaway() {
    let limits = RawLimits { max_connection_age_ms: Some(300), ..RawLimits::default() };
    let fixture = Fixture::with(|written| written.limits = limits).await;
    let stream = TcpStream::connect(fixture.http.address).await.unwrap();
    let handshake = hyper::client::conn::http2::handshake(TokioExecutor::new(), TokioIo::new(stream));
    let (mut sender, connection) = handshake.await.unwrap();
    let connection = tokio::spawn(connection);
    let request = hyper::Request::post(format!("http://{}/claim", fixture.http.address))
        .header("content-type", "application/json")
        .body(Full::<Bytes>::from(r#"{"queues":["q"],"wait_ms":1000}"#))
        .unwrap();
    let started_at = Instant::now();
    let answer = sender.send_request(request).await.unwrap();
    assert_eq!(answer.status(), 200);
    assert!(started_at.elapsed() >= Duration::from_secs(1), "the request in progress finishes");
    answer.into_body().collect().await.unwrap();
    connection.await.unwrap().expect("an orderly end");
    fixture.end().await;
}

#[tokio::test]
async fn claim_whose_redis_call_hangs_ends_as_stopping_in_a_stopping_server() {
    let mut fixture = Fixture::start().await;
    let mut waiting = Raw::connect(fixture.http.address).await;
    fixture.redis.freeze();
    waiting.send(&post("/claim", r#"{"queues":["q"],"wait_ms":60000}"#)).await;
    let in_flight = || async { fixture.http.get("/metrics").await.text.contains("slotwheel_waiting_requests 1\n") };
    fixture.until(|| async { in_flight().await.then_some(()) }).await;

    fixture.tell_to_stop();
    let answer = waiting.answer().await.unwrap();

    let problem = answer.expect(503);
    assert_eq!((&problem["code"], answer.header("connection")), (&json!("stopping"), Some("close")));
    fixture.redis.thaw();
    drop(waiting);
    fixture.stop_servers().await;
    fixture.end().await;
}
