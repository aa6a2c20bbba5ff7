//! Spans as a collector receives them.

mod collector;

use std::collections::BTreeSet;
use std::process::Command;
use std::time::{Duration, Instant};

use deadpool_redis::redis::cmd;
use serde_json::{Value, json};
use slotwheel::domain::id::TaskId;
use slotwheel::domain::queue::QueueName;
use tokio::net::TcpListener;

use super::{Logged, PARENT};
use crate::hand_off::{are_waiting, wait_for_tasks};
use crate::support::redis::OwnRedis;
use crate::support::{Fixture, Http, report, report_with, text};
use collector::{Collector, Span};

const TRACE: &str = "4bf92f3577b34da6a3ce929d0e0e4736";
const CLIENT: &str = "00f067aa0ba902b7";

async fn tracing_to(endpoint: &str) -> Fixture {
    Fixture::with(|written| written.otlp_endpoint = Some(endpoint.to_owned())).await
}

/// Submits a task in the trace of the client.
async fn submit(http: &Http, body: Value) -> Value {
    let answer = http.post_with("/tasks", &[("traceparent", PARENT)], body.to_string().as_bytes()).await;
    answer.expect(201)
}

fn names(spans: &[Span]) -> Vec<&str> {
    spans.iter().map(|span| span.name.as_str()).collect()
}

#[tokio::test]
async fn task_spans_lie_in_the_clients_trace_from_submit_to_end() {
    let collector = Collector::start().await;
    let mut fixture = tracing_to(&collector.endpoint).await;
    let headers = [("traceparent", PARENT), ("tracestate", "vendor=1")];
    let task = fixture.http.post_with("/tasks", &headers, br#"{"queue": "mail"}"#).await.expect(201);
    fixture.advance(1000);
    let claimed = fixture.claim_one("mail").await;
    fixture.advance(2000);
    // The report may go to another server.
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
    assert_eq!(i128::from(waiting.start), created.as_nanosecond(), "times are those of Redis");
    assert_eq!((submit.start, waiting.end), (waiting.start, execution.start));
    assert!(submit.end > submit.start, "the span has a length");
    let second = 1_000_000_000;
    assert!((second..second * 30).contains(&(waiting.end - waiting.start)), "{waiting:?}");
    assert!((2 * second..second * 30).contains(&(execution.end - execution.start)), "{execution:?}");
    fixture.end().await;
}

#[tokio::test]
async fn task_for_a_waiting_claim_has_the_same_spans() {
    let collector = Collector::start().await;
    let mut fixture = tracing_to(&collector.endpoint).await;
    let body = json!({"queues": ["default"], "wait_ms": 30_000, "worker": "w"});
    let waiting = wait_for_tasks(&fixture.http, body);
    are_waiting(&fixture, &fixture.http, 1).await;
    submit(&fixture.http, json!({})).await;
    let tasks = waiting.await.unwrap();
    fixture.http.post("/complete", &report(&tasks[0])).await.expect(200);
    fixture.stop_servers().await;

    let spans = collector.spans();
    let mut found = names(&spans);
    found.sort_unstable();
    assert_eq!(found, ["execution default", "submit default", "waiting default"], "{spans:#?}");
    fixture.end().await;
}

#[tokio::test]
async fn attempt_has_a_wait_span_and_an_execution_span_with_its_outcome() {
    let collector = Collector::start().await;
    let mut fixture = tracing_to(&collector.endpoint).await;
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
async fn spans_after_a_replace_lie_in_the_trace_of_the_replacing_request() {
    let collector = Collector::start().await;
    let mut fixture = tracing_to(&collector.endpoint).await;
    let body = json!({"queue": "mail", "dedupe": {"key": "k", "mode": "replace"}});
    submit(&fixture.http, body.clone()).await;
    let other = PARENT.replace(TRACE, "5bf92f3577b34da6a3ce929d0e0e4737");
    let headers = [("traceparent", other.as_str())];
    fixture.http.post_with("/tasks", &headers, body.to_string().as_bytes()).await.expect(200);
    fixture.http.post("/complete", &report(&fixture.claim_one("mail").await)).await.expect(200);
    fixture.stop_servers().await;

    let spans = collector.spans();
    let lies: Vec<_> = spans.iter().map(|span| (span.name.as_str(), span.trace == TRACE)).collect();
    assert_eq!(lies, [("submit mail", true), ("waiting mail", false), ("execution mail", false)]);
    fixture.end().await;
}

#[tokio::test]
async fn tasks_of_unsampled_traces_have_no_spans() {
    let collector = Collector::start().await;
    let mut fixture = tracing_to(&collector.endpoint).await;
    let unsampled = PARENT.replace("-01", "-00");
    let own = json!({"queue": "own", "headers": {"traceparent": PARENT.replace("4bf9", "aaaa")}});
    let batch = json!({"tasks": [{"queue": "own"}, own, {"queue": "own", "headers": {"traceparent": "mine"}}]});
    for (headers, path, body) in [
        (&[][..], "/tasks", json!({})),
        (&[("traceparent", unsampled.as_str())], "/tasks", json!({})),
        (&[("traceparent", "mine")], "/tasks", json!({})),
        (&[("traceparent", PARENT)], "/tasks/batch", batch),
    ] {
        let answer = fixture.http.post_with(path, headers, body.to_string().as_bytes()).await;
        assert!([200, 201].contains(&answer.status), "{}", answer.text);
    }
    // One claim returns tasks of one shard.
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
async fn repeated_request_exports_no_span_again() {
    let collector = Collector::start().await;
    let mut fixture = tracing_to(&collector.endpoint).await;
    submit(&fixture.http, json!({})).await;
    let claim = json!({"queues": ["default"], "claim_id": "once"});
    let first = fixture.http.post("/claim", &claim).await.expect(200);
    assert_eq!(fixture.http.post("/claim", &claim).await.expect(200), first, "a repeated claim is one wait");
    let kept = json!({"dedupe": {"key": "d"}, "queue": "other"});
    submit(&fixture.http, kept.clone()).await;
    fixture.http.post_with("/tasks", &[("traceparent", PARENT)], kept.to_string().as_bytes()).await.expect(200);
    fixture.stop_servers().await;
    assert_eq!(names(&collector.spans()).len(), 3, "two submits and one claim: {:?}", collector.spans());
    fixture.end().await;
}

#[tokio::test]
async fn batch_over_many_shards_has_all_its_spans() {
    let collector = Collector::start().await;
    let mut fixture = Fixture::with(|written| {
        written.otlp_endpoint = Some(collector.endpoint.clone());
        written.shards = Some(4);
    })
    .await;
    // More tasks per shard than one read takes.
    let tasks: Vec<Value> = (0..100).map(|n| json!({"key": n.to_string(), "payload": n})).collect();
    let batch = json!({"tasks": tasks}).to_string();
    fixture.http.post_with("/tasks/batch", &[("traceparent", PARENT)], batch.as_bytes()).await.expect(200);
    let mut reports = Vec::new();
    while reports.len() < tasks.len() {
        reports.extend(fixture.claim_now("default", 100).await.iter().map(report));
    }
    // A report with a wrong token does not shift the others.
    reports.insert(50, json!({"id": reports[0]["id"], "lease": reports[1]["lease"]}));
    fixture.http.post("/complete/batch", &json!({"completions": reports})).await.expect(200);
    fixture.stop_servers().await;

    let spans = collector.spans();
    let seen = |name: &str| -> BTreeSet<String> {
        let spans = spans.iter().filter(|span| span.name == name);
        spans.map(|span| text(&span.attributes["messaging.message.id"]).to_owned()).collect()
    };
    let wanted: BTreeSet<String> = reports.iter().map(|report| text(&report["id"]).to_owned()).collect();
    assert_eq!((seen("waiting default"), seen("execution default")), (wanted.clone(), wanted));
    assert_eq!(spans.len(), 3 * tasks.len());
    fixture.end().await;
}

#[tokio::test]
async fn leases_expired_together_have_spans_for_those_ended() {
    let collector = Collector::start().await;
    let mut fixture = tracing_to(&collector.endpoint).await;
    submit(&fixture.http, json!({})).await;
    submit(&fixture.http, json!({})).await;
    let (first, second) = (fixture.claim_one("default").await, fixture.claim_one("default").await);
    fixture.http.post("/release", &report(&first)).await.expect(200);
    // The state of a task released between the read of expired leases and their end.
    let id = TaskId::parse(text(&first["id"])).unwrap();
    let store = fixture.store().await;
    let leased = store.shard_for_task(&id).keys.leased(&QueueName::default_queue());
    let _: u64 = fixture.redis.ask(cmd("ZADD").arg(&leased).arg(0).arg(id.as_bytes())).await;
    fixture.advance(61_000);
    fixture.until_lease_ends(&second["id"]).await;
    let _: u64 = fixture.redis.ask(cmd("ZREM").arg(&leased).arg(id.as_bytes())).await;
    fixture.stop_servers().await;

    let spans = collector.spans();
    let ran_out = spans.iter().filter(|span| span.attributes.get("error.type") == Some(&json!("lease_expired")));
    let ids: Vec<&Value> = ran_out.map(|span| &span.attributes["messaging.message.id"]).collect();
    assert_eq!(ids, [&second["id"]]);
    fixture.end().await;
}

#[tokio::test]
async fn claim_with_spans_reads_no_payload_again() {
    let collector = Collector::start().await;
    let fixture = tracing_to(&collector.endpoint).await;
    let length = 200_000;
    submit(&fixture.http, json!({"payload": "x".repeat(length)})).await;
    let sent = async || {
        let info: String = fixture.redis.ask(cmd("INFO").arg("stats")).await;
        let line = info.lines().find_map(|line| line.strip_prefix("total_net_output_bytes:"));
        line.expect("a number").parse::<usize>().unwrap()
    };
    let before = sent().await;
    fixture.claim_one("default").await;
    let read = sent().await - before;
    assert!((length..length + length / 2).contains(&read), "{read}");
    fixture.end().await;
}

#[tokio::test]
async fn tracestate_of_a_task_is_passed_on_if_valid() {
    let collector = Collector::start().await;
    let mut fixture = tracing_to(&collector.endpoint).await;
    let too_many: Vec<String> = (0..33).map(|n| format!("v{n}=1")).collect();
    for (state, queue) in [("vendor=1", "good"), (&*too_many.join(","), "bad")] {
        let headers = json!({"traceparent": PARENT, "tracestate": state});
        fixture.submit_with(json!({"queue": queue, "headers": headers})).await;
    }
    fixture.stop_servers().await;
    let spans = collector.spans();
    let states: Vec<_> = spans.iter().map(|span| (span.name.as_str(), span.state.as_str())).collect();
    assert_eq!(BTreeSet::from_iter(states), BTreeSet::from([("submit good", "vendor=1"), ("submit bad", "")]));
    fixture.end().await;
}

/// Checks that a server stops in time if it cannot export to `endpoint`.
async fn works_and_stops_without(endpoint: &str) {
    let mut fixture = tracing_to(endpoint).await;
    submit(&fixture.http, json!({})).await;
    let claimed = fixture.claim_one("default").await;
    fixture.http.post("/complete", &report(&claimed)).await.expect(200);
    let stop_began = Instant::now();
    fixture.stop_servers().await;
    assert!(stop_began.elapsed() < Duration::from_secs(9), "{:?}", stop_began.elapsed());
    fixture.end().await;
}

#[tokio::test]
async fn server_without_a_collector_works_and_stops_in_time() {
    works_and_stops_without("http://127.0.0.1:1").await;
}

#[tokio::test]
async fn server_with_a_hanging_collector_works_and_stops_in_time() {
    // The listener never accepts its connections.
    let silent = TcpListener::bind("127.0.0.1:0").await.unwrap();
    works_and_stops_without(&format!("http://{}", silent.local_addr().unwrap())).await;
}

#[tokio::test]
async fn otel_environment_variables_are_obeyed() {
    let mut redis = OwnRedis::start().await;
    for (name, variables) in [
        ("mine", &[("OTEL_SERVICE_NAME", "mine")][..]),
        ("mine", &[("OTEL_RESOURCE_ATTRIBUTES", "service.name=mine")]),
        ("slotwheel", &[("OTEL_SERVICE_NAME", "")]),
    ] {
        let collector = Collector::start().await;
        let mut command = Command::new(env!("CARGO_BIN_EXE_slotwheel"));
        command.args(["--listen", "127.0.0.1:0", "--redis-url", &redis.url]).env_remove("SLOTWHEEL_CONFIG");
        command.env_remove("OTEL_SERVICE_NAME").env_remove("OTEL_RESOURCE_ATTRIBUTES");
        command.env("OTEL_EXPORTER_OTLP_ENDPOINT", &collector.endpoint).envs(variables.iter().copied());
        let mut server = Logged::of(&mut command);
        submit(&server.http, json!({})).await;
        let lines = tokio::task::spawn_blocking(move || server.stop()).await.unwrap();
        assert!(lines.iter().all(|line| !line.contains("ERROR") && !line.contains("WARN")), "{lines:#?}");
        let spans = collector.spans();
        assert_eq!((names(&spans), &spans[0].service), (vec!["submit default"], &json!(name)), "{variables:?}");
    }
    redis.stop().await;
}

#[tokio::test]
async fn server_disabled_by_an_otel_variable_sends_no_spans() {
    let mut redis = OwnRedis::start().await;
    for (name, value) in [("OTEL_SDK_DISABLED", "True"), ("OTEL_TRACES_EXPORTER", "none")] {
        let collector = Collector::start().await;
        let mut command = Command::new(env!("CARGO_BIN_EXE_slotwheel"));
        command.args(["--listen", "127.0.0.1:0", "--redis-url", &redis.url]).env_remove("SLOTWHEEL_CONFIG");
        command.args(["--otlp-endpoint", &collector.endpoint]).env(name, value);
        let mut server = Logged::of(&mut command);
        submit(&server.http, json!({})).await;
        let lines = tokio::task::spawn_blocking(move || server.stop()).await.unwrap();
        assert!(lines.iter().all(|line| !line.contains("ERROR") && !line.contains("WARN")), "{lines:#?}");
        assert!(collector.spans().is_empty(), "{name}");
    }
    redis.stop().await;
}

#[test]
fn otel_protocol_that_the_server_does_not_speak_stops_it() {
    let said = |name: &str, value: &str| {
        let mut run = Command::new(env!("CARGO_BIN_EXE_slotwheel"));
        run.env_remove("SLOTWHEEL_CONFIG").env("OTEL_EXPORTER_OTLP_ENDPOINT", "http://127.0.0.1:4317").env(name, value);
        let output = run.args(["--listen", "127.0.0.1:1", "--redis-url", "redis://127.0.0.1:1/x"]).output();
        String::from_utf8_lossy(&output.unwrap().stderr).into_owned()
    };
    for name in ["OTEL_EXPORTER_OTLP_PROTOCOL", "OTEL_EXPORTER_OTLP_TRACES_PROTOCOL"] {
        let refused = said(name, "grpc");
        assert!(refused.contains(&format!("the variable {name} is grpc")), "{refused}");
        let taken = said(name, "http/protobuf");
        assert!(!taken.is_empty() && !taken.contains("OTEL"), "{taken}");
    }
}

#[test]
fn invalid_endpoint_variable_stops_only_a_server() {
    let said = |command: &str| {
        let mut run = Command::new(env!("CARGO_BIN_EXE_slotwheel"));
        run.env_remove("SLOTWHEEL_CONFIG").env("OTEL_EXPORTER_OTLP_ENDPOINT", "collector:4317");
        let output = run.args([command, "--listen", "127.0.0.1:1", "--redis-url", "redis://127.0.0.1:1/x"]).output();
        String::from_utf8_lossy(&output.unwrap().stderr).into_owned()
    };
    let serve = said("serve");
    assert!(serve.contains("the variable OTEL_EXPORTER_OTLP_ENDPOINT is collector:4317"), "{serve}");
    for command in ["doctor", "healthcheck"] {
        let other = said(command);
        assert!(!other.is_empty() && !other.contains("collector"), "{command} went on: {other}");
    }
}
