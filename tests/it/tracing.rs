//! The request id in responses and log lines, and the trace context of a task.

#[cfg(feature = "otlp")]
mod exported;

use std::io::{BufRead as _, BufReader};
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::Receiver;
use std::time::Duration;

use deadpool_redis::redis::cmd;
use reqwest::Method;
use serde_json::{Value, json};

use crate::support::raw_client::Raw;
use crate::support::redis::OwnRedis;
use crate::support::{Answer, Fixture, Http, text};

const PARENT: &str = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";

/// The request id of a response, which its header and its problem share.
#[track_caller]
fn id_of(problem: &Answer) -> String {
    let id = problem.header("x-request-id").expect("an id").to_owned();
    assert_eq!(problem.json()["request_id"], json!(id), "{}", problem.text);
    id
}

#[tokio::test]
async fn problems_have_the_id_of_their_request() {
    let fixture = Fixture::start().await;
    let http = &fixture.http;
    let missing = "/tasks/019cadd4-669a-7438-89af-2a74de452329";
    let body = Some(&b"{}"[..]);
    for (status, method, path, header) in [
        (404, Method::GET, "/nowhere", None),
        (404, Method::GET, missing, None),
        (405, Method::DELETE, "/tasks", None),
        (400, Method::GET, "/tasks/x", None),
        (422, Method::GET, "/tasks", None),
        (415, Method::POST, "/claim", None),
        (403, Method::POST, "/tasks", Some(("sec-fetch-site", "cross-site"))),
        (422, Method::POST, "/complete", Some(("content-type", "application/json"))),
    ] {
        let body = body.filter(|_| method == Method::POST);
        let headers: Vec<_> = header.into_iter().chain([("x-request-id", "mine/7")]).collect();
        let answer = http.send(method.clone(), path, &headers, body).await;
        assert_eq!(answer.status, status, "{method} {path}: {}", answer.text);
        assert_eq!(id_of(&answer), "mine/7", "{method} {path}");
        let (one, other) = (http.send(method.clone(), path, &[], body).await, http.send(method, path, &[], body).await);
        assert_ne!(id_of(&one), id_of(&other), "each request has an id of its own");
    }
    let batch = json!({"tasks": [{}, {"priority": 10}]}).to_string();
    let json = ("content-type", "application/json");
    let answer = http.send(Method::POST, "/tasks/batch", &[json, ("x-request-id", "b")], Some(batch.as_bytes())).await;
    assert_eq!(answer.expect(200)["results"][1]["problem"]["request_id"], "b");
    fixture.end().await;
}

#[tokio::test]
async fn malformed_request_gets_an_id() {
    let fixture = Fixture::start().await;
    let mut raw = Raw::connect(fixture.http.address).await;
    raw.send("GET /livez HTTP/1.1\r\nno header\r\n\r\n").await;
    let answer = raw.answer().await.expect("an answer");
    assert_eq!(answer.status, 400);
    assert_eq!(id_of(&answer).len(), 36);
    fixture.end().await;
}

#[tokio::test]
async fn invalid_request_id_is_replaced() {
    let fixture = Fixture::start().await;
    let longest = "x".repeat(128);
    let taken = fixture.http.send(Method::GET, "/livez", &[("x-request-id", &longest)], None).await;
    assert_eq!(taken.header("x-request-id"), Some(longest.as_str()));
    let too_long = "x".repeat(129);
    for id in ["", "a b", "\"x\", \"y\": 1 ", "a\tb", &too_long] {
        let answer = fixture.http.send(Method::GET, "/livez", &[("x-request-id", id)], None).await;
        assert_eq!(answer.header("x-request-id").map(str::len), Some(36), "{id:?}");
    }
    fixture.end().await;
}

/// The binary and its log lines.
struct Logged {
    child: Child,
    http: Http,
    lines: Receiver<String>,
}

impl Logged {
    fn start(redis: &OwnRedis, more: &[&str]) -> Self {
        let mut command = Command::new(env!("CARGO_BIN_EXE_slotwheel"));
        command.args(["--listen", "127.0.0.1:0", "--redis-url", &redis.url]).args(more);
        Self::of(command.env_remove("SLOTWHEEL_CONFIG"))
    }

    fn of(command: &mut Command) -> Self {
        let mut child = command.stdin(Stdio::null()).stderr(Stdio::piped()).spawn().unwrap();
        let stderr = BufReader::new(child.stderr.take().unwrap()).lines();
        let (said, lines) = std::sync::mpsc::channel();
        std::thread::spawn(move || stderr.map_while(Result::ok).for_each(|line| drop(said.send(line))));
        let mut logged = Logged { child, http: Http::new(([127, 0, 0, 1], 0).into()), lines };
        let line = logged.line(|line| line.contains("listening"));
        let address = line.split(['"', ' ', '=']).find_map(|word| word.parse().ok());
        logged.http = Http::new(address.expect("an address"));
        logged
    }

    /// Returns the next line that matches.
    fn line(&self, wanted: impl Fn(&str) -> bool) -> String {
        loop {
            let line = self.lines.recv_timeout(Duration::from_secs(30)).expect("a matching line");
            if wanted(&line) {
                return line;
            }
        }
    }

    /// Stops the server and returns its remaining lines.
    fn stop(&mut self) -> Vec<String> {
        assert!(Command::new("kill").args(["-TERM", &self.child.id().to_string()]).status().unwrap().success());
        assert!(self.child.wait().unwrap().success());
        self.lines.iter().collect()
    }
}

impl Drop for Logged {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

async fn post(http: &Http, id: &str) -> Answer {
    http.post_with("/tasks", &[("x-request-id", id)], b"{}").await
}

#[tokio::test]
async fn json_log_line_is_an_object_with_the_id_of_its_request() {
    let mut redis = OwnRedis::start().await;
    let mut server = Logged::start(&redis, &["--log-format", "json", "--log", "info,slotwheel=debug"]);
    post(&server.http, "one").await.expect(201);
    let _: () = redis.ask(cmd("CONFIG").arg("SET").arg("maxmemory").arg(1)).await;
    post(&server.http, "two").await.expect(507);
    let lines = server.stop();
    redis.stop().await;

    let lines: Vec<Value> = lines.iter().map(|line| serde_json::from_str(line).expect(line)).collect();
    for line in &lines {
        assert!(text(&line["timestamp"]).parse::<jiff::Timestamp>().is_ok(), "{line}");
        assert!(["ERROR", "WARN", "INFO", "DEBUG", "TRACE"].contains(&text(&line["level"])), "{line}");
        assert!(line["target"].is_string() && line["message"].is_string() && line["fields"].is_object(), "{line}");
    }
    let said = |message: &str| -> Vec<&Value> { lines.iter().filter(|line| line["message"] == message).collect() };
    assert_eq!(said("request received")[0]["fields"], json!({"method": "POST", "path": "/tasks"}));
    let answered: Vec<_> =
        said("response ready").iter().map(|line| (&line["request_id"], &line["fields"]["status"])).collect();
    assert_eq!(answered, [(&json!("one"), &json!(201)), (&json!("two"), &json!(507))]);
    let full = said("write rejected: Redis is out of memory");
    assert_eq!((&full[0]["level"], &full[0]["request_id"]), (&json!("WARN"), &json!("two")));
    let stopped = said("stopped");
    assert!(stopped[0].get("request_id").is_none(), "the stop belongs to no request: {}", stopped[0]);
}

#[tokio::test]
async fn text_log_line_ends_with_the_id_of_its_request() {
    let mut redis = OwnRedis::start().await;
    let mut server = Logged::start(&redis, &[]);
    let _: () = redis.ask(cmd("CONFIG").arg("SET").arg("maxmemory").arg(1)).await;
    post(&server.http, "mine").await.expect(507);
    let line = server.line(|line| line.contains("write rejected: Redis is out of memory"));
    assert!(line.ends_with(" request_id=mine"), "{line}");
    assert!(server.stop().iter().all(|line| !line.contains("request_id")), "no other line belongs to a request");
    redis.stop().await;
}

/// Submits one task with these headers and claims it. Returns the headers of the task.
async fn carried(fixture: &Fixture, headers: &[(&str, &str)], body: &Value) -> Value {
    fixture.http.post_with("/tasks", headers, body.to_string().as_bytes()).await.expect(201);
    fixture.claim_one("default").await["headers"].clone()
}

#[tokio::test]
async fn trace_context_of_a_submit_is_passed_to_the_worker() {
    let fixture = Fixture::start().await;
    let parent = ("traceparent", PARENT);
    let both = carried(&fixture, &[parent, ("tracestate", "a=1"), ("tracestate", "b=2")], &json!({})).await;
    assert_eq!(both, json!({"traceparent": PARENT, "tracestate": "a=1,b=2"}));
    let later = PARENT.replacen("00", "01", 1) + "-more";
    let found = carried(&fixture, &[("traceparent", &later)], &json!({})).await;
    assert_eq!(found, json!({"traceparent": later}), "a later version is passed on unchanged");
    let own = json!({"headers": {"traceparent": "mine"}});
    let found = carried(&fixture, &[parent, ("tracestate", "a=1")], &own).await;
    assert_eq!(found, own["headers"], "headers of the task win, and no tracestate joins them");
    let own = json!({"headers": {"tracestate": "mine=1"}});
    let found = carried(&fixture, &[parent, ("tracestate", "a=1")], &own).await;
    assert_eq!(found, json!({"traceparent": PARENT, "tracestate": "mine=1"}));
    fixture.end().await;
}

#[tokio::test]
async fn invalid_trace_context_is_ignored() {
    let fixture = Fixture::start().await;
    let none = "00-00000000000000000000000000000000-00f067aa0ba902b7-01";
    let upper = PARENT.to_uppercase();
    for wrong in ["mine", "", none, &upper, &PARENT[..54], &format!("{PARENT}-")] {
        let found = carried(&fixture, &[("traceparent", wrong), ("tracestate", "a=1")], &json!({})).await;
        assert_eq!(found, json!({}), "{wrong}");
    }
    let twice = carried(&fixture, &[("traceparent", PARENT), ("traceparent", PARENT)], &json!({})).await;
    assert_eq!(twice, json!({}), "two parents are ambiguous");
    for wrong in ["mine", "A=1", &format!("a={}", "x".repeat(600))] {
        let found = carried(&fixture, &[("traceparent", PARENT), ("tracestate", wrong)], &json!({})).await;
        assert_eq!(found, json!({"traceparent": PARENT}), "{wrong}");
    }
    assert_eq!(carried(&fixture, &[("tracestate", "a=1")], &json!({})).await, json!({}), "no parent");
    fixture.end().await;
}

#[tokio::test]
async fn trace_context_is_left_out_if_the_attributes_are_full() {
    let fixture = Fixture::start().await;
    let headers = [("traceparent", PARENT), ("tracestate", "a=1")];
    let many = |count: usize| (0..count).map(|n| (n.to_string(), json!("v"))).collect::<serde_json::Map<_, _>>();
    let found = carried(&fixture, &headers, &json!({"headers": many(32)})).await;
    assert_eq!(found, json!(many(32)));
    let found = carried(&fixture, &headers, &json!({"headers": many(31)})).await;
    assert_eq!((found["traceparent"].as_str(), found.get("tracestate")), (Some(PARENT), None));
    // All attributes share 16 KiB. The parent takes 11 and 55 bytes, the state 10 and 3.
    for (bytes, wanted) in [(16 * 1024 - 66, 2), (16 * 1024 - 65, 1), (16 * 1024 - 79, 3)] {
        let found = carried(&fixture, &headers, &json!({"headers": {"x": "v".repeat(bytes - 1)}})).await;
        assert_eq!(found.as_object().unwrap().len(), wanted, "{bytes}");
    }
    fixture.end().await;
}

#[tokio::test]
async fn trace_context_of_a_batch_is_given_to_tasks_without_one() {
    let fixture = Fixture::start().await;
    let own = json!({"traceparent": PARENT.replace("4bf9", "aaaa")});
    let batch = json!({"tasks": [{"queue": "a"}, {"queue": "b", "headers": own}, {"queue": "a", "priority": 10}]});
    let answer = fixture.http.post_with("/tasks/batch", &[("traceparent", PARENT)], batch.to_string().as_bytes()).await;
    assert_eq!(answer.expect(200)["results"][2]["status"], 422);
    assert_eq!(fixture.claim_one("a").await["headers"], json!({"traceparent": PARENT}));
    assert_eq!(fixture.claim_one("b").await["headers"], own);
    fixture.end().await;
}

#[tokio::test]
async fn repeated_submit_in_another_trace_is_the_same_submit() {
    let fixture = Fixture::start().await;
    let other = PARENT.replace("00f067", "11f067");
    let submit = async |parent: &str, key: &str, path: &str, body: &Value| {
        let headers = [("traceparent", parent), ("idempotency-key", key)];
        let headers = if key.is_empty() { &headers[..1] } else { &headers[..] };
        fixture.http.post_with(path, headers, body.to_string().as_bytes()).await
    };
    let first = submit(PARENT, "k", "/tasks", &json!({})).await.expect(201);
    let again = submit(&other, "k", "/tasks", &json!({})).await.expect(201);
    assert_eq!((&again["id"], &again["headers"]), (&first["id"], &json!({"traceparent": PARENT})));
    let batch = json!({"tasks": [{"idempotency_key": "item"}]});
    let first = submit(PARENT, "", "/tasks/batch", &batch).await.expect(200);
    let again = submit(&other, "", "/tasks/batch", &batch).await.expect(200);
    assert_eq!(again["results"][0]["task"]["id"], first["results"][0]["task"]["id"]);
    let kept = json!({"dedupe": {"key": "d"}});
    let first = submit(PARENT, "", "/tasks", &kept).await.expect(201);
    assert_eq!(submit(&other, "", "/tasks", &kept).await.expect(200)["id"], first["id"]);
    fixture.end().await;
}

#[cfg(not(feature = "otlp"))]
#[test]
fn binary_without_otlp_rejects_an_otlp_endpoint() {
    let run = |arguments: &[&str]| {
        let mut command = Command::new(env!("CARGO_BIN_EXE_slotwheel"));
        // The common variable does not stop a build without the feature: it fails later, at the missing Redis.
        command.env("OTEL_EXPORTER_OTLP_ENDPOINT", "http://localhost:4318").env_remove("SLOTWHEEL_CONFIG");
        let output = command.args(["--redis-url", "redis://127.0.0.1:1/x"]).args(arguments).output().unwrap();
        assert!(!output.status.success());
        String::from_utf8_lossy(&output.stderr).into_owned()
    };
    assert!(run(&["--otlp-endpoint", "http://localhost:4318"]).contains("--features otlp"));
    assert!(!run(&[]).contains("otlp"));
}
