//! A client that has gone holds nothing.

use std::net::SocketAddr;

use serde_json::{Value, json};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

use crate::support::Fixture;

/// A long poll on a connection of its own. Returns when the server has it in line.
async fn poll(fixture: &Fixture, address: SocketAddr) -> TcpStream {
    let mut stream = TcpStream::connect(address).await.unwrap();
    let body = json!({"queues": ["q"], "wait_ms": 60_000}).to_string();
    let head = format!(
        "POST /claim HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\ncontent-length: {}\r\n\r\n{body}",
        body.len()
    );
    stream.write_all(head.as_bytes()).await.unwrap();
    // A claim that comes later is answered later: by then the poll is in line.
    assert!(fixture.claim_now("q", 1).await.is_empty());
    stream
}

/// What is submitted right after goes to another at once, attempts uncounted.
async fn check(fixture: &Fixture) {
    let id = fixture.submit("q", json!(1)).await["id"].clone();
    let claim = fixture.claim_one("q");
    let claimed = tokio::time::timeout(std::time::Duration::from_secs(5), claim).await.expect("at once");
    assert_eq!(claimed["id"], id);
    assert_eq!(fixture.task(&id).await["attempts"], 0);
}

#[tokio::test]
async fn one_that_closed() {
    let fixture = Fixture::start().await;
    let stream = poll(&fixture, fixture.http.address).await;
    drop(stream);
    check(&fixture).await;
    fixture.end().await;
}

#[tokio::test]
async fn one_that_reset() {
    let fixture = Fixture::start().await;
    let stream = poll(&fixture, fixture.http.address).await;
    stream.set_zero_linger().unwrap();
    drop(stream);
    check(&fixture).await;
    fixture.end().await;
}

#[tokio::test]
async fn one_that_closed_its_half() {
    let fixture = Fixture::start().await;
    let mut stream = poll(&fixture, fixture.http.address).await;
    stream.shutdown().await.unwrap();
    check(&fixture).await;
    let mut rest = Vec::new();
    let _ = stream.read_to_end(&mut rest).await;
    fixture.end().await;
}

#[tokio::test]
async fn many_that_leave_while_tasks_come() {
    let fixture = Fixture::start().await;
    for round in 0..20 {
        let stream = poll(&fixture, fixture.http.address).await;
        let submit = fixture.submit("q", json!(round));
        let (_, task) = tokio::join!(async { drop(stream) }, submit);
        // Whichever came first, the task is to be had and was not counted.
        let claimed: Value = fixture.claim_one("q").await;
        assert_eq!(claimed["id"], task["id"]);
        assert_eq!(claimed["attempt"], 1);
        fixture.http.post("/complete", &crate::support::report(&claimed)).await.expect(200);
    }
    fixture.end().await;
}
