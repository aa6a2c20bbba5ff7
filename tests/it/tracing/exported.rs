//! Spans as they arrive at a collector.

mod collector;

use std::time::{Duration, Instant};

use serde_json::{Value, json};

use super::{Logged, PARENT};
use crate::support::redis::OwnRedis;
use crate::support::{Fixture, Http, report, report_with, text};
use collector::{Collector, Span};

const TRACE: &str = "4bf92f3577b34da6a3ce929d0e0e4736";
const CLIENT: &str = "00f067aa0ba902b7";

async fn following(endpoint: &str) -> Fixture {
    Fixture::with(|written| written.otlp_endpoint = Some(endpoint.to_owned())).await
}

/// Submits a task in the client's trace.
async fn submit(http: &Http, body: Value) -> Value {
    let answer = http.post_with("/tasks", &[("traceparent", PARENT)], body.to_string().as_bytes()).await;
    answer.expect(201)
}

fn names(spans: &[Span]) -> Vec<&str> {
    spans.iter().map(|span| span.name.as_str()).collect()
}

#[tokio::test]
async fn a_task_is_seen_in_its_clients_trace_from_submit_to_end() {
    let collector = Collector::start().await;
    let mut fixture = following(&collector.endpoint).await;
    let headers = [("traceparent", PARENT), ("tracestate", "vendor=1")];
    let task = fixture.http.post_with("/tasks", &headers, br#"{"queue": "mail"}"#).await.expect(201);
    fixture.advance(1000);
    let claimed = fixture.claim_one("mail").await;
    fixture.advance(2000);
    // Whichever server it is reported to.
    let other = fixture.another_server().await;
    other.post("/complete", &report(&claimed)).await.expect(200);
    other.post("/complete", &report(&claimed)).await.expect(200);
    fixture.stop_servers().await;

    let spans = collector.spans();
    assert_eq!(names(&spans), ["submit mail", "waiting mail", "execution mail"], "{spans:#?}");
    for span in &spans {
        assert_eq!((span.trace.as_str(), span.parent.as_str()), (TRACE, CLIENT), "{span:?}");
        assert_eq!((&span.service, span.state.as_str(), span.status), (&json!("slotwheel"), "vendor=1", 0));
        assert_eq!(span.attributes["messaging.system"], "slotwheel");
        assert_eq!(span.attributes["messaging.destination.name"], "mail");
        assert_eq!(span.attributes["messaging.message.id"], task["id"]);
        assert_eq!(span.name, format!("{} mail", text(&span.attributes["messaging.operation.name"])));
    }
    let [submit, waiting, execution] = &spans[..] else { unreachable!() };
    assert!(submit.id != waiting.id && waiting.id != execution.id);
    assert_eq!((submit.kind, &submit.attributes["messaging.operation.type"]), (2, &json!("send")));
    assert_eq!(execution.attributes["messaging.operation.type"], "process");
    assert_eq!(execution.attributes["messaging.client.id"], "w");
    assert_eq!((&execution.attributes["slotwheel.attempt"]), (&json!(1)));
    assert_eq!(execution.attributes["slotwheel.outcome"], "completed");
    let created = text(&task["created_at"]).parse::<jiff::Timestamp>().unwrap();
    assert_eq!(i128::from(waiting.start), created.as_nanosecond(), "times are Redis' own");
    assert_eq!((submit.end, waiting.end), (waiting.start, execution.start));
    let second = 1_000_000_000;
    assert!((second..second * 30).contains(&(waiting.end - waiting.start)), "{waiting:?}");
    assert!((2 * second..second * 30).contains(&(execution.end - execution.start)), "{execution:?}");
    fixture.end().await;
}

#[tokio::test]
async fn each_attempt_is_a_wait_and_an_execution_that_says_how_it_ended() {
    let collector = Collector::start().await;
    let mut fixture = following(&collector.endpoint).await;
    let task = submit(&fixture.http, json!({"backoff": {"kind": "fixed", "base_ms": 0, "jitter": "none"}})).await;
    let failed = report_with(&fixture.claim_one("default").await, json!({"error": {"type": "T", "message": "m"}}));
    fixture.advance(10);
    fixture.http.post("/fail", &failed).await.expect(200);
    fixture.advance(10);
    let released = fixture.claim_one("default").await;
    fixture.advance(10);
    fixture.http.post("/release", &report(&released)).await.expect(200);
    fixture.advance(10);
    let silent = fixture.claim_one("default").await;
    fixture.advance(61_000);
    fixture.until_state(&task["id"], "ready").await;
    fixture.advance(10);
    let batch = json!({"completions": [report(&silent), report(&fixture.claim_one("default").await)]});
    fixture.advance(10);
    let ended = fixture.http.post("/complete/batch", &batch).await.expect(200);
    assert_eq!((&ended["results"][0]["status"], &ended["results"][1]["status"]), (&json!(409), &json!(200)));
    fixture.stop_servers().await;

    let spans = collector.spans();
    let executions: Vec<&Span> = spans.iter().filter(|span| span.name == "execution default").collect();
    let said = |span: &&Span| {
        (span.attributes["slotwheel.outcome"].clone(), span.attributes["slotwheel.attempt"].clone(), span.status)
    };
    let said: Vec<_> = executions.iter().map(said).collect();
    let wanted = [("failed", 1, 2), ("released", 2, 0), ("lease_expired", 2, 2), ("completed", 3, 0)];
    assert_eq!(said, wanted.map(|(outcome, attempt, status)| (json!(outcome), json!(attempt), status)));
    assert_eq!(executions[2].attributes["error.type"], "lease_expired");
    assert_eq!(executions[2].end - executions[2].start, 60_000_000_000, "from the claim to the end of the lease");
    let waits = spans.iter().filter(|span| span.name == "waiting default").count();
    assert_eq!((waits, spans.len()), (4, 9), "{:?}", names(&spans));
    fixture.end().await;
}

#[tokio::test]
async fn only_tasks_of_a_trace_that_is_kept_are_followed() {
    let collector = Collector::start().await;
    let mut fixture = following(&collector.endpoint).await;
    let not_kept = PARENT.replace("-01", "-00");
    let own = json!({"queue": "own", "headers": {"traceparent": PARENT.replace("4bf9", "aaaa")}});
    let batch = json!({"tasks": [{"queue": "own"}, own, {"queue": "own", "headers": {"traceparent": "mine"}}]});
    for (headers, path, body) in [
        (&[][..], "/tasks", json!({})),
        (&[("traceparent", not_kept.as_str())], "/tasks", json!({})),
        (&[("traceparent", "mine")], "/tasks", json!({})),
        (&[("traceparent", PARENT)], "/tasks/batch", batch),
    ] {
        let answer = fixture.http.post_with(path, headers, body.to_string().as_bytes()).await;
        assert!([200, 201].contains(&answer.status), "{}", answer.text);
    }
    // A claim gets what one shard has.
    for queue in ["default", "default", "default", "own", "own", "own"] {
        let claimed = fixture.claim_one(queue).await;
        fixture.http.post("/complete", &report(&claimed)).await.expect(200);
    }
    fixture.stop_servers().await;

    let spans = collector.spans();
    let of = |trace: &str| spans.iter().filter(|span| span.trace == trace).count();
    assert_eq!((of(TRACE), of(&TRACE.replace("4bf9", "aaaa")), spans.len()), (3, 3, 6), "{spans:#?}");
    fixture.end().await;
}

#[tokio::test]
async fn what_is_answered_again_is_not_seen_again() {
    let collector = Collector::start().await;
    let mut fixture = following(&collector.endpoint).await;
    submit(&fixture.http, json!({})).await;
    let claim = json!({"queues": ["default"], "claim_id": "once"});
    let first = fixture.http.post("/claim", &claim).await.expect(200);
    assert_eq!(fixture.http.post("/claim", &claim).await.expect(200), first, "asked for twice, it is one wait");
    let kept = json!({"dedupe": {"key": "d"}, "queue": "other"});
    submit(&fixture.http, kept.clone()).await;
    fixture.http.post_with("/tasks", &[("traceparent", PARENT)], kept.to_string().as_bytes()).await.expect(200);
    fixture.stop_servers().await;
    assert_eq!(names(&collector.spans()).len(), 3, "two were submitted, one was claimed: {:?}", collector.spans());
    fixture.end().await;
}

#[tokio::test]
async fn without_a_collector_all_works_and_stops_in_time() {
    let mut fixture = following("http://127.0.0.1:1").await;
    submit(&fixture.http, json!({})).await;
    let claimed = fixture.claim_one("default").await;
    fixture.http.post("/complete", &report(&claimed)).await.expect(200);
    let told = Instant::now();
    fixture.stop_servers().await;
    assert!(told.elapsed() < Duration::from_secs(8), "{:?}", told.elapsed());
    fixture.end().await;
}

#[tokio::test]
async fn the_variable_that_all_programs_understand_is_understood() {
    let collector = Collector::start().await;
    let mut redis = OwnRedis::start().await;
    let mut command = std::process::Command::new(env!("CARGO_BIN_EXE_slotwheel"));
    command.args(["--listen", "127.0.0.1:0", "--redis-url", &redis.url]).env_remove("SLOTWHEEL_CONFIG");
    command.env("OTEL_EXPORTER_OTLP_ENDPOINT", &collector.endpoint).env("OTEL_SERVICE_NAME", "mine");
    let mut server = Logged::of(&mut command);
    submit(&server.http, json!({})).await;
    let lines = tokio::task::spawn_blocking(move || server.stop()).await.unwrap();
    redis.stop().await;
    assert!(lines.iter().all(|line| !line.contains("ERROR") && !line.contains("WARN")), "{lines:#?}");
    let spans = collector.spans();
    assert_eq!((names(&spans), &spans[0].service), (vec!["submit default"], &json!("mine")));
}
