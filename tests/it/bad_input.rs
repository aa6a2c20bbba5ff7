//! Invalid requests get their own problem code and a pointer, and store nothing; the connection stays usable.

use serde_json::{Value, json};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

use crate::support::Fixture;

/// Path, body, status, code, pointer ("" for the body as a whole, "-" for none).
type Row = (&'static str, String, u16, &'static str, &'static str);

fn rows() -> Vec<Row> {
    let deep = "[".repeat(65) + &"]".repeat(65);
    let large = "x".repeat(256 * 1024);
    let id = "0190c7a0-5dcb-7b6f-8d6e-2f1f3a4b5c6d";
    let text = |value: Value| value.to_string();
    let tasks = |value: Value| text(json!({"queue": "q"}).merged(value));
    let many = |count: usize| (0..count).map(|n| json!(format!("t{n}"))).collect::<Value>();
    vec![
        ("/tasks", "".into(), 400, "malformed_json", ""),
        ("/tasks", "{".into(), 400, "malformed_json", ""),
        ("/tasks", "{}x".into(), 400, "malformed_json", ""),
        ("/tasks", "{'a':1}".into(), 400, "malformed_json", ""),
        ("/tasks", r#"{"payload":NaN}"#.into(), 400, "malformed_json", ""),
        ("/tasks", r#"{"payload":01}"#.into(), 400, "malformed_json", ""),
        ("/tasks", r#"{"payload":["\ud800"]}"#.into(), 400, "lone_surrogate", "/payload/0"),
        ("/tasks", r#"{"payload":{"a":[1,-1e400]}}"#.into(), 422, "number_overflow", "/payload/a/1"),
        ("/tasks", r#"{"payload":[{"a":1,"b":{},"\u0061":2}]}"#.into(), 422, "duplicate_field", "/payload/0/a"),
        ("/tasks", r#"{"headers":{"a":"","a":""}}"#.into(), 422, "duplicate_field", "/headers/a"),
        ("/tasks", r#"{"priority":1e400}"#.into(), 422, "number_overflow", "/priority"),
        ("/tasks", format!("{{\"payload\":{deep}}}"), 400, "too_deep", ""),
        ("/tasks", "[]".into(), 422, "wrong_type", ""),
        ("/tasks", "null".into(), 422, "wrong_type", ""),
        ("/tasks", tasks(json!({"colour": 1})), 422, "unknown_field", "/colour"),
        ("/tasks", tasks(json!({"a/b~c": 1})), 422, "unknown_field", "/a~1b~0c"),
        ("/tasks", tasks(json!({"group": "g"})), 422, "unknown_field", "/group"),
        ("/tasks", r#"{"queue":"q","queue":"q"}"#.into(), 422, "duplicate_field", "/queue"),
        ("/tasks", tasks(json!({"queue": 7})), 422, "wrong_type", "/queue"),
        ("/tasks", tasks(json!({"queue": ""})), 422, "invalid_queue", "/queue"),
        ("/tasks", tasks(json!({"queue": "{a}"})), 422, "invalid_queue", "/queue"),
        ("/tasks", tasks(json!({"queue": "a:b"})), 422, "invalid_queue", "/queue"),
        ("/tasks", tasks(json!({"queue": "a\n"})), 422, "invalid_queue", "/queue"),
        ("/tasks", tasks(json!({"queue": "a".repeat(129)})), 422, "invalid_queue", "/queue"),
        ("/tasks", tasks(json!({"payload": large})), 413, "payload_too_large", "/payload"),
        ("/tasks", tasks(json!({"key": ""})), 422, "invalid_value", "/key"),
        ("/tasks", tasks(json!({"key": "k".repeat(257)})), 422, "too_long", "/key"),
        ("/tasks", tasks(json!({"priority": 10})), 422, "out_of_range", "/priority"),
        ("/tasks", tasks(json!({"priority": -1})), 422, "out_of_range", "/priority"),
        ("/tasks", tasks(json!({"priority": "9"})), 422, "wrong_type", "/priority"),
        ("/tasks", tasks(json!({"priority": 1.5})), 422, "wrong_type", "/priority"),
        ("/tasks", tasks(json!({"tags": [null]})), 422, "wrong_type", "/tags/0"),
        ("/tasks", tasks(json!({"dedupe": {"key": null}})), 422, "missing_field", "/dedupe/key"),
        ("/tasks", r#"{"delay_ms":123456789012345678901234567890}"#.into(), 422, "out_of_range", "/delay_ms"),
        ("/tasks", tasks(json!({"delay_ms": -1})), 422, "out_of_range", "/delay_ms"),
        ("/tasks", tasks(json!({"delay_ms": 500, "expires_in_ms": 500})), 422, "invalid_time", "/delay_ms"),
        ("/tasks", tasks(json!({"run_at": "tomorrow"})), 422, "invalid_time", "/run_at"),
        ("/tasks", tasks(json!({"run_at": "2026-02-30T00:00:00Z"})), 422, "invalid_time", "/run_at"),
        ("/tasks", tasks(json!({"run_at": "9000-01-01T00:00:00Z"})), 422, "invalid_time", "/run_at"),
        ("/tasks", tasks(json!({"run_at": 5})), 422, "wrong_type", "/run_at"),
        ("/tasks", tasks(json!({"delay_ms": 1, "run_at": "2030-01-01T00:00:00Z"})), 422, "invalid_value", "/run_at"),
        ("/tasks", tasks(json!({"expires_in_ms": 0})), 422, "out_of_range", "/expires_in_ms"),
        ("/tasks", tasks(json!({"max_attempts": 0})), 422, "out_of_range", "/max_attempts"),
        ("/tasks", tasks(json!({"max_attempts": 1001})), 422, "out_of_range", "/max_attempts"),
        ("/tasks", tasks(json!({"retain_ms": 9999})), 422, "out_of_range", "/retain_ms"),
        ("/tasks", tasks(json!({"max_run_ms": 43_200_001})), 422, "out_of_range", "/max_run_ms"),
        ("/tasks", tasks(json!({"backoff": "fixed"})), 422, "wrong_type", "/backoff"),
        ("/tasks", tasks(json!({"backoff": {"kind": "linear"}})), 422, "invalid_value", "/backoff/kind"),
        ("/tasks", tasks(json!({"backoff": {"factor": 0.5}})), 422, "out_of_range", "/backoff/factor"),
        ("/tasks", tasks(json!({"backoff": {"kind": "list"}})), 422, "missing_field", "/backoff/delays_ms"),
        (
            "/tasks",
            tasks(json!({"backoff": {"kind": "list", "delays_ms": []}})),
            422,
            "invalid_value",
            "/backoff/delays_ms",
        ),
        (
            "/tasks",
            tasks(json!({"backoff": {"kind": "list", "delays_ms": [1, -1]}})),
            422,
            "out_of_range",
            "/backoff/delays_ms/1",
        ),
        ("/tasks", tasks(json!({"backoff": {"kind": "fixed", "factor": 0}})), 422, "out_of_range", "/backoff/factor"),
        ("/tasks", tasks(json!({"backoff": {"kind": "fixed", "delay": 2}})), 422, "unknown_field", "/backoff/delay"),
        ("/tasks", tasks(json!({"tags": many(33)})), 422, "too_long", "/tags"),
        ("/tasks", tasks(json!({"tags": ["a", 1]})), 422, "wrong_type", "/tags/1"),
        ("/tasks", tasks(json!({"tags": ["x".repeat(129)]})), 422, "too_long", "/tags/0"),
        ("/tasks", tasks(json!({"headers": {"a": 1}})), 422, "wrong_type", "/headers/a"),
        ("/tasks", tasks(json!({"headers": {"a": "x".repeat(17_000)}})), 422, "too_long", "/headers"),
        ("/tasks", tasks(json!({"dedupe": {}})), 422, "missing_field", "/dedupe/key"),
        ("/tasks", tasks(json!({"dedupe": {"key": "d", "mode": "drop"}})), 422, "invalid_value", "/dedupe/mode"),
        ("/tasks", tasks(json!({"dedupe": {"key": "d", "window_ms": 0}})), 422, "out_of_range", "/dedupe/window_ms"),
        ("/tasks/batch", "{}".into(), 422, "missing_field", "/tasks"),
        ("/tasks/batch", text(json!({"tasks": []})), 422, "invalid_value", "/tasks"),
        ("/tasks/batch", text(json!({"tasks": {}})), 422, "wrong_type", "/tasks"),
        ("/tasks/batch", text(json!({"tasks": vec![json!({}); 1001]})), 413, "batch_too_large", "/tasks"),
        ("/claim", text(json!({"queues": []})), 422, "invalid_value", "/queues"),
        ("/claim", text(json!({"queues": many(33)})), 422, "too_long", "/queues"),
        ("/claim", text(json!({"queues": ["a", "b c"]})), 422, "invalid_queue", "/queues/1"),
        ("/claim", text(json!({"wait_ms": 60_001})), 422, "out_of_range", "/wait_ms"),
        ("/claim", text(json!({"wait_ms": -1})), 422, "out_of_range", "/wait_ms"),
        ("/claim", text(json!({"lease_ms": 999})), 422, "out_of_range", "/lease_ms"),
        ("/claim", text(json!({"lease_ms": 43_200_001})), 422, "out_of_range", "/lease_ms"),
        ("/claim", text(json!({"max": 0})), 422, "out_of_range", "/max"),
        ("/claim", text(json!({"max": 101})), 422, "out_of_range", "/max"),
        ("/claim", text(json!({"slots": "auto"})), 422, "unknown_field", "/slots"),
        ("/claim", text(json!({"worker": ""})), 422, "invalid_value", "/worker"),
        ("/complete", text(json!({"lease": "x"})), 422, "missing_field", "/id"),
        ("/complete", text(json!({"id": id})), 422, "missing_field", "/lease"),
        ("/complete", text(json!({"id": "7", "lease": "x"})), 400, "invalid_id", "/id"),
        ("/complete", text(json!({"id": 7, "lease": "x"})), 422, "wrong_type", "/id"),
        ("/complete", text(json!({"id": id, "lease": "x"})), 404, "task_not_found", "-"),
        ("/complete", text(json!({"id": id, "lease": "x", "claim": {"max": 0}})), 422, "out_of_range", "/claim/max"),
        (
            "/complete/batch",
            text(json!({"completions": [{"id": id, "lease": "x"}, {"lease": "x"}]})),
            422,
            "missing_field",
            "/completions/1/id",
        ),
        ("/fail", text(json!({"id": id, "lease": "x"})), 422, "missing_field", "/error"),
        (
            "/fail",
            text(json!({"id": id, "lease": "x", "error": {"type": "e", "message": "m"}, "retry": 1})),
            422,
            "wrong_type",
            "/retry",
        ),
        (
            "/fail",
            text(json!({"id": id, "lease": "x", "error": {"type": "e", "message": "m"}})),
            404,
            "task_not_found",
            "-",
        ),
        ("/release", text(json!({"id": id, "lease": "x", "delay_ms": 1.5})), 422, "wrong_type", "/delay_ms"),
        ("/heartbeat", text(json!({"tasks": [{"id": "x", "lease": "x"}]})), 400, "invalid_id", "/tasks/0/id"),
        ("/queues/a:b/pause", "{}".into(), 422, "invalid_queue", ":queue"),
        ("/queues/q/pause", text(json!({"x": 1})), 422, "unknown_field", "/x"),
        ("/queues/q/purge", "{}".into(), 422, "missing_field", "/states"),
        ("/queues/q/purge", text(json!({"states": []})), 422, "invalid_value", "/states"),
        ("/tasks/x/cancel", "{}".into(), 400, "invalid_id", ":id"),
        ("/tasks/0190c7a0-5dcb-7b6f-8d6e-2f1f3a4b5c6d/retry", "{}".into(), 404, "task_not_found", "-"),
    ]
}

trait Merged {
    fn merged(self, more: Value) -> Value;
}

impl Merged for Value {
    fn merged(mut self, more: Value) -> Value {
        self.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        self
    }
}

#[tokio::test]
async fn invalid_request_of_each_kind_is_rejected_and_stores_nothing() {
    let fixture = Fixture::start().await;
    for (path, body, status, code, pointer) in rows() {
        let answer = fixture.http.post_text(path, &body).await;
        let shown: String = body.chars().take(120).collect();
        assert_eq!(answer.status, status, "{path} {shown}: {}", answer.text);
        let (got, at) = answer.problem(status);
        assert_eq!((got.as_str(), at.as_deref().unwrap_or("-")), (code, pointer), "{path} {shown}");
    }
    assert_eq!(fixture.http.get("/queues").await.expect(200)["queues"], json!([]));
    fixture.end().await;
}

#[tokio::test]
async fn invalid_query_parameters_are_rejected() {
    let fixture = Fixture::start().await;
    for (path, status, code, pointer) in [
        ("/tasks", 422, "missing_field", "?queue"),
        ("/tasks?queue=q", 422, "missing_field", "?state"),
        ("/tasks?queue=a:b&state=ready", 422, "invalid_queue", "?queue"),
        ("/tasks?queue=q&state=done", 422, "invalid_value", "?state"),
        ("/tasks?queue=q&state=ready&limit=0", 422, "out_of_range", "?limit"),
        ("/tasks?queue=q&state=ready&limit=x", 422, "wrong_type", "?limit"),
        ("/tasks?queue=q&state=ready&cursor=x", 400, "invalid_cursor", "?cursor"),
        ("/tasks?queue=q&state=dead&cursor=1-2-3", 400, "invalid_cursor", "?cursor"),
        ("/tasks?queue=q&state=ready&colour=1", 400, "invalid_query", "?colour"),
        ("/tasks?queue=q&queue=q&state=ready", 400, "invalid_query", "?queue"),
        ("/queues?cursor=%7B", 400, "invalid_cursor", "?cursor"),
        ("/tasks/0190c7a0-5dcb-7b6f-8d6e-2f1f3a4b5c6d?wait_ms=60001", 422, "out_of_range", "?wait_ms"),
        ("/tasks/1", 400, "invalid_id", ":id"),
        ("/slots?key=", 422, "too_long", "?key"),
    ] {
        let (got, at) = fixture.http.get(path).await.problem(status);
        assert_eq!((got.as_str(), at.as_deref()), (code, Some(pointer)), "{path}");
    }
    fixture.end().await;
}

#[tokio::test]
async fn media_types_methods_paths_and_headers_are_checked() {
    let fixture = Fixture::start().await;
    let http = &fixture.http;
    let post = reqwest::Method::POST;
    let no_type = http.send(post.clone(), "/tasks", &[], Some(b"{}")).await;
    assert_eq!(no_type.problem(415).0, "unsupported_media_type");
    let form = [("content-type", "application/x-www-form-urlencoded")];
    let curl = http.send(post.clone(), "/tasks", &form, Some(b"{}")).await;
    assert_eq!(curl.problem(415).0, "unsupported_media_type");
    for answer in [&no_type, &curl] {
        let detail = answer.json()["detail"].as_str().unwrap().to_owned();
        assert!(detail.contains("Content-Type: application/json") && detail.contains("--json"), "{detail}");
    }
    let other = http.send(post.clone(), "/tasks", &[("content-type", "text/plain")], Some(b"{}")).await;
    assert_eq!(other.problem(415).0, "unsupported_media_type");
    assert!(other.json()["detail"].as_str().unwrap().contains("text/plain"));
    let charset = [("content-type", "application/json; charset=utf-8")];
    http.send(post.clone(), "/tasks", &charset, Some(b"{}")).await.expect(201);
    let not_utf8 = http.post_with("/tasks", &[], b"{\"payload\":\"\xff\"}").await;
    assert_eq!(not_utf8.problem(400).0, "malformed_json");
    for encoding in ["gzip", "identity, br"] {
        let compressed = http.post_with("/tasks", &[("content-encoding", encoding)], b"\x1f\x8b\x08").await;
        let (code, pointer) = compressed.problem(415);
        assert_eq!((code.as_str(), pointer.as_deref()), ("unsupported_media_type", Some("header:Content-Encoding")));
        assert!(compressed.json()["detail"].as_str().unwrap().contains(encoding));
    }
    http.post_with("/tasks", &[("content-encoding", "identity")], b"{}").await.expect(201);
    let method = http.send(reqwest::Method::PUT, "/tasks", &[], None).await;
    assert_eq!(method.problem(405).0, "method_not_allowed");
    assert!(method.header("allow").unwrap().contains("POST"));
    assert_eq!(http.get("/nowhere").await.problem(404).0, "route_not_found");
    let cross = http.post_with("/queues/q/pause", &[("sec-fetch-site", "cross-site")], b"{}").await;
    assert_eq!(cross.problem(403).0, "cross_site");
    let prefer = http.post_with("/claim", &[("prefer", "wait=soon")], b"{}").await;
    assert_eq!(prefer.problem(400).0, "invalid_header");
    for unreadable in ["\"\"", "\"", "\"half", "a\tb", "\"a\tb\""] {
        let key = http.post_with("/tasks", &[("idempotency-key", unreadable)], b"{}").await;
        assert_eq!(key.problem(400).0, "invalid_header", "{unreadable}");
    }
    fixture.end().await;
}

#[tokio::test]
async fn header_with_one_value_is_rejected_if_it_is_repeated() {
    let fixture = Fixture::start().await;
    for (method, path, name, pointer) in [
        (reqwest::Method::POST, "/tasks", "idempotency-key", "header:Idempotency-Key"),
        (reqwest::Method::POST, "/tasks", "content-type", "header:Content-Type"),
        (reqwest::Method::GET, "/events", "last-event-id", "header:Last-Event-ID"),
    ] {
        let json = ("content-type", "application/json");
        let headers = if name == "content-type" { vec![json, json] } else { vec![json, (name, "a"), (name, "a")] };
        let answer = fixture.http.send(method, path, &headers, Some(b"{}")).await;
        let (code, at) = answer.problem(400);
        assert_eq!((code.as_str(), at.as_deref()), ("invalid_header", Some(pointer)));
    }
    let answer =
        fixture.http.send(reqwest::Method::GET, "/livez", &[("x-request-id", "a"), ("x-request-id", "b")], None);
    assert_eq!(answer.await.header("x-request-id").unwrap().len(), 36);
    assert_eq!(fixture.http.get("/queues").await.expect(200)["queues"], json!([]));
    fixture.end().await;
}

#[tokio::test]
async fn problem_names_the_field_in_its_detail() {
    let fixture = Fixture::start().await;
    for (path, body, detail) in [
        ("/tasks", r#"{"priority":"9"}"#, "priority must be a whole number"),
        ("/tasks", r#"{"backoff":{"factor":0}}"#, "backoff/factor must be from 1 to 100"),
        ("/tasks", r#"{"tags":["a",""]}"#, "tags/1 must not be empty"),
        ("/tasks", r#"{"key":"k","key":"k"}"#, "the JSON has the second field of one name at byte 11"),
        ("/tasks", "[]", "the body must be an object"),
        ("/claim", r#"{"max":0}"#, "max must be from 1 to 100"),
    ] {
        let answer = fixture.http.post_text(path, body).await.json();
        assert_eq!((&answer["detail"], &answer["errors"][0]["detail"]), (&json!(detail), &json!(detail)));
    }
    assert_eq!(fixture.http.get("/queues?colour=1").await.json()["detail"], "the parameter colour is unknown");
    fixture.end().await;
}

#[tokio::test]
async fn body_over_its_limit_is_rejected_with_any_framing() {
    let fixture = Fixture::start().await;
    let body = format!("{{\"payload\":\"{}\"}}", "x".repeat(1024 * 1024));
    assert_eq!(fixture.http.post_text("/tasks", &body).await.problem(413).0, "body_too_large");
    let body = format!("{{\"tasks\":[\"{}\"]}}", "x".repeat(8 * 1024 * 1024));
    assert_eq!(fixture.http.post_text("/tasks/batch", &body).await.problem(413).0, "body_too_large");
    let mut stream = TcpStream::connect(fixture.http.address).await.unwrap();
    let head =
        "POST /tasks HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\ntransfer-encoding: chunked\r\n\r\n";
    stream.write_all(head.as_bytes()).await.unwrap();
    let chunk = format!("{:x}\r\n{}\r\n", 512 * 1024, "x".repeat(512 * 1024));
    for _ in 0..3 {
        // The server may respond and close before all is sent.
        let _ = stream.write_all(chunk.as_bytes()).await;
    }
    let mut answer = [0; 12];
    stream.read_exact(&mut answer).await.unwrap();
    assert_eq!(&answer, b"HTTP/1.1 413");
    fixture.end().await;
}

#[tokio::test]
async fn connection_serves_the_next_request_after_a_rejection() {
    let fixture = Fixture::start().await;
    let mut stream = TcpStream::connect(fixture.http.address).await.unwrap();
    for (body, status) in [("{", "400"), ("{\"a\":1}", "422"), ("{\"queue\":\"{}\"}", "422"), ("{}", "201")] {
        let request = format!(
            "POST /tasks HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\ncontent-length: {}\r\n\r\n{body}",
            body.len()
        );
        stream.write_all(request.as_bytes()).await.unwrap();
        let mut answer = vec![0; 16_384];
        let read = stream.read(&mut answer).await.unwrap();
        let answer = String::from_utf8_lossy(&answer[..read]).into_owned();
        assert!(answer.starts_with(&format!("HTTP/1.1 {status}")), "{body}: {answer}");
    }
    fixture.end().await;
}
