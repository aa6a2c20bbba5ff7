//! An ambiguous request is rejected, and the bytes after it are not served as another request (request smuggling).

use crate::support::Fixture;
use crate::support::raw_client::{Raw, get, post};

/// A request whose task shows that bytes after a rejected request were served.
const SMUGGLED: &str =
    "POST /tasks HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\ncontent-length: 2\r\n\r\n{}";

fn ambiguous() -> Vec<(&'static str, String)> {
    let post = "POST /tasks HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\n";
    let get = "GET /livez HTTP/1.1\r\n";
    vec![
        ("both lengths", format!("{post}content-length: 6\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\nx")),
        (
            "both lengths in the other order",
            format!("{post}transfer-encoding: chunked\r\ncontent-length: 6\r\n\r\n0\r\n\r\nx"),
        ),
        ("two lengths", format!("{post}content-length: 2\r\ncontent-length: 3\r\n\r\n{{}}x")),
        ("one length twice", format!("{post}content-length: 2\r\ncontent-length: 2\r\n\r\n{{}}")),
        ("a list of lengths", format!("{post}content-length: 2, 2\r\n\r\n{{}}")),
        ("a length with a sign", format!("{post}content-length: +2\r\n\r\n{{}}")),
        ("a negative length", format!("{post}content-length: -2\r\n\r\n{{}}")),
        ("a length in hex", format!("{post}content-length: 0x2\r\n\r\n{{}}")),
        ("no length", format!("{post}content-length:\r\n\r\n{{}}")),
        ("a length over 64 bits", format!("{post}content-length: 99999999999999999999\r\n\r\n{{}}")),
        ("another coding", format!("{post}transfer-encoding: gzip\r\n\r\n{{}}")),
        ("chunked and another", format!("{post}transfer-encoding: gzip, chunked\r\n\r\n0\r\n\r\n")),
        ("chunked twice", format!("{post}transfer-encoding: chunked\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\n")),
        ("chunked in quotes", format!("{post}transfer-encoding: \"chunked\"\r\n\r\n0\r\n\r\n")),
        ("chunked after a vertical tab", format!("{post}transfer-encoding: \x0bchunked\r\n\r\n0\r\n\r\n")),
        (
            "chunked in HTTP/1.0",
            "POST /tasks HTTP/1.0\r\nhost: x\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\n".into(),
        ),
        ("a folded header", format!("{get}host: x\r\na: b\r\n c\r\n\r\n")),
        ("a folded first header", format!("{get} host: x\r\n\r\n")),
        ("a space before the colon", format!("{get}host: x\r\ncontent-length : 2\r\n\r\n{{}}")),
        ("no colon", format!("{get}host: x\r\na\r\n\r\n")),
        ("no name", format!("{get}host: x\r\n: a\r\n\r\n")),
        ("a bare line feed", format!("{get}host: x\na: b\r\n\r\n")),
        ("bare line feeds alone", "GET /livez HTTP/1.1\nhost: x\n\n".into()),
        ("a bare carriage return", format!("{get}host: x\r\na: b\rc: d\r\n\r\n")),
        ("a NUL in a value", format!("{get}host: x\r\na: b\0c\r\n\r\n")),
        ("a NUL in a name", format!("{get}host: x\r\na\0: b\r\n\r\n")),
        ("a control character", format!("{get}host: x\r\na: b\x01c\r\n\r\n")),
        ("no host", format!("{get}\r\n")),
        ("two hosts", format!("{get}host: x\r\nhost: x\r\n\r\n")),
        ("an invalid host", format!("{get}host: x/y z\r\n\r\n")),
        ("two spaces in the first line", "GET  /livez HTTP/1.1\r\nhost: x\r\n\r\n".into()),
        ("a tab in the first line", "GET\t/livez HTTP/1.1\r\nhost: x\r\n\r\n".into()),
        ("no version", "GET /livez\r\n\r\n".into()),
        ("another version", "GET /livez HTTP/1.2\r\nhost: x\r\n\r\n".into()),
        ("an invalid method", "GE(T /livez HTTP/1.1\r\nhost: x\r\n\r\n".into()),
        ("an HTTP/2 preface with headers", "PRI * HTTP/2.0\r\nhost: x\r\n\r\nSM\r\n\r\n".into()),
        ("TLS", "\x16\x03\x01\x02\x00\x01\r\n\r\n".into()),
    ]
}

#[tokio::test]
async fn ambiguous_request_is_rejected_and_its_connection_closed() {
    let fixture = Fixture::start().await;
    for (name, request) in ambiguous() {
        let mut raw = Raw::connect(fixture.http.address).await;
        raw.send(&format!("{request}{SMUGGLED}")).await;
        let answer = raw.answer().await.unwrap_or_else(|| panic!("{name}: no answer"));
        (fixture.http.check)("POST", "/tasks", &answer);
        assert_eq!(answer.problem(400).0, "malformed_request", "{name}");
        assert_eq!(answer.header("connection"), Some("close"), "{name}");
        assert!(answer.header("date").is_some(), "{name}");
        raw.closed().await;
    }
    assert_eq!(
        fixture.http.get("/queues").await.expect(200)["queues"],
        serde_json::json!([]),
        "no smuggled request was served"
    );
    fixture.end().await;
}

#[tokio::test]
async fn ambiguous_request_behind_a_valid_one_is_rejected() {
    let fixture = Fixture::start().await;
    let mut raw = Raw::connect(fixture.http.address).await;
    let bad = "GET /livez HTTP/1.1\r\nhost: x\r\ncontent-length: 5\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\n";
    raw.send(&format!("{}{}{bad}{SMUGGLED}", get("/livez"), post("/tasks", "{}"))).await;
    raw.answer().await.unwrap().expect(200);
    raw.answer().await.unwrap().expect(201);
    assert_eq!(raw.answer().await.unwrap().problem(400).0, "malformed_request");
    raw.closed().await;
    assert_eq!(fixture.counts("default").await["ready"], 1);
    fixture.end().await;
}

#[tokio::test]
async fn head_over_its_limit_is_rejected() {
    let fixture = Fixture::start().await;
    for request in [
        format!("GET /livez HTTP/1.1\r\nhost: x\r\n{}\r\n", "a: b\r\n".repeat(100)),
        format!("GET /livez HTTP/1.1\r\nhost: x\r\na: {}\r\n\r\n", "x".repeat(1024 * 1024)),
        format!("GET /{} HTTP/1.1\r\nhost: x\r\n\r\n", "x".repeat(40_000)),
        "x".repeat(40_000),
        "\r\n".repeat(20_000),
    ] {
        let mut raw = Raw::connect(fixture.http.address).await;
        raw.send(&request).await;
        assert_eq!(raw.answer().await.unwrap().problem(431).0, "head_too_large");
        raw.closed().await;
    }
    let mut raw = Raw::connect(fixture.http.address).await;
    let largest = format!("GET /livez HTTP/1.1\r\nhost: x\r\n{}\r\n", "a: b\r\n".repeat(99));
    raw.send(&format!("{largest}{largest}")).await;
    raw.answer().await.unwrap().expect(200);
    raw.answer().await.unwrap().expect(200);
    fixture.end().await;
}

#[tokio::test]
async fn pipelined_requests_are_answered_in_order() {
    let fixture = Fixture::start().await;
    let mut raw = Raw::connect(fixture.http.address).await;
    let chunked = "POST /tasks HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\ntransfer-encoding: chunked\r\n\r\n\
                   1;a=b\r\n{\r\nD\r\n\"payload\": 2}\r\n0\r\na: b\r\n\r\n";
    let first = post("/tasks", "{\"payload\":1}");
    let all = format!("{first}{chunked}\r\n{}{}", get("/livez"), post("/tasks", "{\"payload\":3}"));
    raw.send(&all).await;
    assert_eq!(raw.answer().await.unwrap().expect(201)["payload"], 1);
    assert_eq!(raw.answer().await.unwrap().expect(201)["payload"], 2);
    assert_eq!(raw.answer().await.unwrap().expect(200)["status"], "ok");
    assert_eq!(raw.answer().await.unwrap().expect(201)["payload"], 3);
    // The same requests in small parts have the same responses.
    let mut in_parts = Raw::connect(fixture.http.address).await;
    for piece in all.as_bytes().chunks(7) {
        in_parts.send(std::str::from_utf8(piece).unwrap()).await;
        tokio::task::yield_now().await;
    }
    for status in [201, 201, 200, 201] {
        in_parts.answer().await.unwrap().expect(status);
    }
    fixture.end().await;
}

#[tokio::test]
async fn malformed_chunked_body_closes_the_connection() {
    let fixture = Fixture::start().await;
    for body in ["2\r\n{}x\r\n0\r\n\r\n", "2\n{}\r\n0\r\n\r\n", "-2\r\n{}\r\n0\r\n\r\n", "2\r\n{}\r\n0\n\n"] {
        let mut raw = Raw::connect(fixture.http.address).await;
        let head =
            "POST /tasks HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\ntransfer-encoding: chunked\r\n\r\n";
        raw.send(&format!("{head}{body}{SMUGGLED}")).await;
        assert_eq!(raw.answer().await.unwrap().status, 400, "{body:?}");
        raw.closed().await;
    }
    assert_eq!(fixture.http.get("/queues").await.expect(200)["queues"], serde_json::json!([]));
    fixture.end().await;
}
