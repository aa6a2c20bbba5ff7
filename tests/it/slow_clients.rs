//! A client that sends nothing, sends slowly, or does not read loses its connection at a timeout. Other clients are not
//! delayed. The timeouts are short here.

use std::time::{Duration, Instant};

use futures_util::future::join_all;
use serde_json::json;
use slotwheel::config::{RawConfig, RawLimits};
use tokio::net::{TcpListener, TcpSocket};
use tokio_util::sync::CancellationToken;

use crate::support::Fixture;
use crate::support::raw_client::{Raw, get, post};

const MS: Duration = Duration::from_millis(1);
/// Time that a busy machine may add to a timeout.
const SLACK: Duration = Duration::from_secs(5);

async fn limited(limits: RawLimits) -> Fixture {
    Fixture::with(|written| written.limits = limits).await
}

#[track_caller]
fn check(elapsed: Duration, timeout_ms: u32) {
    let timeout = MS * timeout_ms;
    assert!((timeout..timeout + SLACK).contains(&elapsed), "{elapsed:?} for a timeout of {timeout:?}");
}

#[tokio::test]
async fn silent_connection_is_closed() {
    let fixture = limited(RawLimits { connect_idle_timeout_ms: Some(300), ..RawLimits::default() }).await;
    let mut raw = Raw::connect(fixture.http.address).await;
    check(raw.closed().await, 300);
    fixture.end().await;
}

#[tokio::test]
async fn head_sent_byte_by_byte_gets_408() {
    let limits = RawLimits { head_timeout_ms: Some(500), connect_idle_timeout_ms: Some(100), ..RawLimits::default() };
    let fixture = limited(limits).await;
    for (prefix, next) in
        [("", get("/livez")), ("PRI * HT", "TP/2.0\r\n\r\nSM\r\n\r\n".into()), ("\r\n", "\r\n".into())]
    {
        let mut raw = Raw::connect(fixture.http.address).await;
        raw.send(prefix).await;
        raw.dribble(&next.repeat(3)[..next.len() - 1], MS * 100).await;
        let answer = raw.answer().await.expect("408");
        (fixture.http.check)("POST", "/tasks", &answer);
        assert_eq!(answer.problem(408).0, "request_timeout");
        assert_eq!(answer.header("connection"), Some("close"));
        check(raw.closed().await, 500);
    }
    // The timeout also applies to a second head.
    let mut raw = Raw::connect(fixture.http.address).await;
    raw.send(&format!("{}GET /li", get("/livez"))).await;
    raw.answer().await.unwrap().expect(200);
    assert_eq!(raw.answer().await.unwrap().status, 408);
    check(raw.closed().await, 500);
    fixture.end().await;
}

#[tokio::test]
async fn body_sent_byte_by_byte_gets_408_and_stores_nothing() {
    let fixture = limited(RawLimits { body_timeout_ms: Some(400), ..RawLimits::default() }).await;
    let sized = post("/tasks", &" ".repeat(5000));
    let (head, body) = sized.split_once("\r\n\r\n").unwrap();
    let chunked =
        "POST /tasks HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\ntransfer-encoding: chunked\r\n\r\n";
    for (head, body) in [(format!("{head}\r\n\r\n"), body.to_owned()), (chunked.into(), "1\r\n \r\n".repeat(500))] {
        let mut raw = Raw::connect(fixture.http.address).await;
        raw.send(&head).await;
        raw.dribble(&body, MS * 20).await;
        let answer = raw.answer().await.expect("408");
        (fixture.http.check)("POST", "/tasks", &answer);
        assert_eq!(answer.problem(408).0, "request_timeout");
        assert_eq!(answer.header("connection"), Some("close"));
        check(raw.closed().await, 400);
    }
    fixture.end().await;
}

#[tokio::test]
async fn body_at_the_minimum_rate_is_read_until_its_total_timeout() {
    let limits = RawLimits {
        body_timeout_ms: Some(1000),
        min_body_bytes_per_second: Some(10_000),
        max_body_timeout_ms: Some(4000),
        ..RawLimits::default()
    };
    let fixture = limited(limits).await;
    // 50 kB at 25 kB/s: twice body_timeout_ms.
    let body = json!({"payload": "x".repeat(50_000)}).to_string();
    let pieces = async |raw: &mut Raw, text: &str| {
        let mut interval = tokio::time::interval(MS * 100);
        for piece in text.as_bytes().chunks(2500) {
            interval.tick().await;
            raw.send(std::str::from_utf8(piece).unwrap()).await;
        }
    };
    let mut raw = Raw::connect(fixture.http.address).await;
    pieces(&mut raw, &post("/tasks", &body)).await;
    raw.answer().await.unwrap().expect(201);
    assert!(raw.opened.elapsed() > MS * 1500);
    // 500 kB at that rate: more than max_body_timeout_ms.
    let mut raw = Raw::connect(fixture.http.address).await;
    let text = post("/tasks", &" ".repeat(500_000));
    let (head, body) = text.split_once("\r\n\r\n").unwrap();
    raw.send(&format!("{head}\r\n\r\n")).await;
    let mut interval = tokio::time::interval(MS * 100);
    for piece in body.as_bytes().chunks(2500) {
        tokio::select! {
            _ = interval.tick() => raw.send(std::str::from_utf8(piece).unwrap()).await,
            _ = raw.stream.readable() => break,
        }
    }
    assert_eq!(raw.answer().await.unwrap().problem(408).0, "request_timeout");
    check(raw.opened.elapsed(), 4000);
    fixture.end().await;
}

#[tokio::test]
async fn idle_connection_is_closed_and_one_in_use_is_not() {
    let limits = RawLimits { idle_timeout_ms: Some(600), connect_idle_timeout_ms: Some(200), ..RawLimits::default() };
    let fixture = limited(limits).await;
    let mut raw = Raw::connect(fixture.http.address).await;
    let mut interval = tokio::time::interval(MS * 200);
    for _ in 0..5 {
        interval.tick().await;
        raw.send(&get("/livez")).await;
        raw.answer().await.unwrap().expect(200);
    }
    // A long poll is not idle.
    let since = Instant::now();
    raw.send(&post("/claim", "{\"wait_ms\":1000}")).await;
    raw.answer().await.unwrap().expect(200);
    raw.closed().await;
    check(since.elapsed(), 1600);
    fixture.end().await;
}

#[tokio::test]
async fn connection_with_an_unread_response_is_closed() {
    let fixture = limited(RawLimits { write_timeout_ms: Some(500), ..RawLimits::default() }).await;
    let payload = "x".repeat(250_000);
    let tasks = vec![json!({"queue": "q", "payload": payload}); 25];
    fixture.http.post("/tasks/batch", &json!({"tasks": tasks})).await.expect(200);
    let socket = TcpSocket::new_v4().unwrap();
    socket.set_recv_buffer_size(4096).unwrap();
    let mut raw = Raw::over(socket.connect(fixture.http.address).await.unwrap());
    let large = "/tasks?queue=q&state=ready&limit=100";
    raw.send(&get(large).repeat(5)).await;
    // Five pages of 4 MB exceed every buffer. The server resets the connection at the timeout.
    let gone = tokio::time::timeout(Duration::from_secs(20), raw.stream.ready(tokio::io::Interest::ERROR)).await;
    gone.expect("a reset in time").unwrap();
    check(raw.opened.elapsed(), 500);
    // A client that reads gets the same pages.
    let mut reader = Raw::connect(fixture.http.address).await;
    reader.send(&get(large).repeat(5)).await;
    for _ in 0..5 {
        assert!(reader.answer().await.unwrap().text.len() > 4_000_000);
    }
    fixture.end().await;
}

#[tokio::test]
async fn connection_beyond_its_age_closes_after_a_response() {
    let fixture = limited(RawLimits { max_connection_age_ms: Some(500), ..RawLimits::default() }).await;
    let address = fixture.http.address;
    let waiting = async {
        let mut raw = Raw::connect(address).await;
        raw.send(&get("/livez")).await;
        assert_eq!(raw.answer().await.unwrap().header("connection"), None);
        raw.send(&post("/claim", "{\"queues\":[\"other\"],\"wait_ms\":1500}")).await;
        let answer = raw.answer().await.unwrap();
        assert_eq!((answer.status, answer.header("connection")), (200, Some("close")));
        assert!(raw.closed().await > MS * 1500, "the long poll ends at its own time");
    };
    let sending = async {
        let mut raw = Raw::connect(address).await;
        raw.dribble(&get("/livez")[..20], MS * 60).await;
        raw.send(&get("/livez")[20..]).await;
        let answer = raw.answer().await.unwrap();
        assert_eq!((answer.status, answer.header("connection")), (200, Some("close")));
        raw.closed().await;
    };
    let idle = async {
        let mut raw = Raw::connect(address).await;
        raw.send(&get("/livez")).await;
        raw.answer().await.unwrap().expect(200);
        check(raw.closed().await + MS * 50, 500);
    };
    tokio::join!(waiting, sending, idle);
    fixture.end().await;
}

/// Opens 200 connections with these timeouts: silent, amid a head, amid a body, and idle after a response.
async fn connect_slow_clients(timeout_ms: u64) -> (Fixture, Vec<Raw>) {
    let limits = RawLimits {
        connect_idle_timeout_ms: Some(timeout_ms),
        head_timeout_ms: Some(timeout_ms),
        body_timeout_ms: Some(timeout_ms),
        idle_timeout_ms: Some(timeout_ms),
        ..RawLimits::default()
    };
    let fixture = limited(limits).await;
    let mut slow: Vec<Raw> = join_all((0..200).map(|_| Raw::connect(fixture.http.address))).await;
    for (number, raw) in slow.iter_mut().enumerate() {
        match number % 4 {
            0 => {}
            1 => raw.send("GET /livez HT").await,
            2 => raw.send(&post("/tasks", "{}").replace("length: 2", "length: 9")).await,
            _ => {
                raw.send(&get("/livez")).await;
                raw.answer().await.unwrap().expect(200);
            }
        }
    }
    (fixture, slow)
}

#[tokio::test]
async fn slow_clients_do_not_delay_others() {
    let (fixture, slow) = connect_slow_clients(60_000).await;
    for _ in 0..20 {
        fixture.submit("q", json!(1)).await;
        let task = fixture.claim_one("q").await;
        fixture.http.post("/complete", &crate::support::report(&task)).await.expect(200);
    }
    // All slow connections are open, so no task waited for the end of one.
    for raw in &slow {
        assert_eq!(raw.stream.try_read(&mut [0]).unwrap_err().kind(), std::io::ErrorKind::WouldBlock);
    }
    drop(slow);
    fixture.end().await;
}

#[tokio::test]
async fn mass_of_slow_clients_is_disconnected_at_the_timeouts() {
    let (fixture, mut slow) = connect_slow_clients(6000).await;
    let closed = join_all(slow.iter_mut().enumerate().map(async |(number, raw)| {
        if matches!(number % 4, 1 | 2) {
            assert_eq!(raw.answer().await.expect("an answer").status, 408);
        }
        raw.closed().await
    }));
    closed.await.into_iter().for_each(|elapsed| check(elapsed, 6000));
    fixture.end().await;
}

/// Answers each request with one word.
#[derive(Clone)]
struct Here;

impl slotwheel::http_server::Responder for Here {
    async fn respond(&self, _: axum::extract::Request) -> axum::response::Response {
        axum::response::Response::new("here".into())
    }
}

#[tokio::test]
async fn connections_opened_and_closed_are_counted() {
    use slotwheel::http_server::{self, ServerState, ShutdownTokens};
    let limits = RawLimits {
        connect_idle_timeout_ms: Some(200),
        head_timeout_ms: Some(200),
        max_connection_age_ms: Some(1000),
        max_connections: Some(2),
        max_connections_per_address: Some(1),
        ..RawLimits::default()
    };
    let config = RawConfig { limits, ..RawConfig::default() }.resolve().unwrap();
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let stop = CancellationToken::new();
    let server = ServerState::new(
        &config.limits,
        ShutdownTokens::new(stop.clone(), stop.clone()),
        slotwheel::api::render_rejection,
    );
    let serving = tokio::spawn(http_server::serve(listener, Here, server.clone(), Duration::from_secs(1)));

    let mut silent = Raw::connect(address).await;
    let mut over_address_limit = Raw::connect(address).await;
    assert_eq!(over_address_limit.answer().await.unwrap().status, 503);
    let socket = TcpSocket::new_v4().unwrap();
    socket.bind("127.0.0.2:0".parse().unwrap()).unwrap();
    let mut other = Raw::over(socket.connect(address).await.unwrap());
    other.send("GET").await;
    let socket = TcpSocket::new_v4().unwrap();
    socket.bind("127.0.0.3:0".parse().unwrap()).unwrap();
    let mut over_limit = Raw::over(socket.connect(address).await.unwrap());
    assert_eq!(over_limit.answer().await.unwrap().status, 503);
    assert_eq!(server.open_connections(), 2);
    silent.closed().await;
    assert_eq!(other.answer().await.unwrap().status, 408);
    drop((silent, over_address_limit, other, over_limit));
    for (request, status) in [("GET / HTTP/1.1\r\n\r\n".to_owned(), 400), (get(&"/".repeat(40_000)), 431)] {
        let mut raw = connect_alone(address, &server).await;
        raw.send(&request).await;
        assert_eq!(raw.answer().await.unwrap().status, status);
    }
    let mut old = connect_alone(address, &server).await;
    old.send(&get("/")).await;
    assert_eq!(old.answer().await.unwrap().text, "here");
    old.closed().await;
    drop(old);

    let metrics = server.metrics();
    let counts = |family: Vec<(&'static str, &str, u64)>| -> Vec<(&'static str, u64)> {
        family.into_iter().map(|(reason, _, count)| (reason, count)).collect()
    };
    assert_eq!(counts(metrics.counters.read()), [("connections_accepted", 5)]);
    let closed = [("connect_idle", 1), ("head_timeout", 1), ("idle", 0), ("write_timeout", 0), ("max_age", 1)];
    assert_eq!(counts(metrics.connections_closed.read()), closed);
    let rejected = [("max_connections", 1), ("max_connections_per_address", 1)];
    assert_eq!(counts(metrics.connections_rejected.read()), rejected);
    let rejected = [("malformed_head", 1), ("head_too_large", 1), ("body_too_slow", 0), ("body_memory", 0)];
    assert_eq!(counts(metrics.requests_rejected.read()), rejected);
    stop.cancel();
    serving.await.unwrap();
    assert_eq!((server.open_connections(), server.body_memory_bytes()), (0, 0));
}

/// Returns a new connection, opened when all others are closed.
async fn connect_alone(address: std::net::SocketAddr, server: &slotwheel::http_server::ServerState) -> Raw {
    while server.open_connections() > 0 {
        tokio::task::yield_now().await;
    }
    Raw::connect(address).await
}
