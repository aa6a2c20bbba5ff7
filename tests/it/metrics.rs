//! `/metrics`: well formed, bounded for any load, exact, and served without Redis.

mod dataset;

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use reqwest::Method;
use serde_json::{Value, json};
use slotwheel::dispatch::{ClaimRequest, Dispatch};
use slotwheel::domain::queue::QueueName;
use slotwheel::spans::Spans;
use tokio::io::AsyncReadExt as _;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::support::exposition::{Exposition, Labels};
use crate::support::raw_client::{Raw, post};
use crate::support::{Fixture, Http, report, report_with, text};

const OPENMETRICS: &str = "application/openmetrics-text; version=1.0.0";

pub async fn metrics_of(http: &Http) -> Exposition {
    let answer = http.send(Method::GET, "/metrics", &[("accept", OPENMETRICS)], None).await;
    assert_eq!(answer.header("content-type"), Some("application/openmetrics-text; version=1.0.0; charset=utf-8"));
    Exposition::open(&answer.text)
}

pub async fn metrics(fixture: &Fixture) -> Exposition {
    metrics_of(&fixture.http).await
}

/// Transition counts by label.
fn transitions(metrics: &Exposition) -> BTreeMap<String, u64> {
    let family = &metrics.0["slotwheel_transitions"];
    let each = family.samples.iter().map(|(_, labels, count)| (labels["transition"].clone(), *count as u64));
    each.filter(|(_, count)| *count > 0).collect()
}

/// Makes one request of most kinds.
pub async fn use_it(fixture: &Fixture) {
    fixture.submit("q", json!(1)).await;
    let task = fixture.claim_one("q").await;
    fixture.http.post("/complete", &report(&task)).await.expect(200);
    fixture.http.get("/queues").await.expect(200);
    fixture.http.get("/nothing/here").await.expect(404);
}

#[tokio::test]
async fn metrics_formats_are_well_formed_and_agree() {
    let fixture = Fixture::start().await;
    use_it(&fixture).await;
    let open = metrics(&fixture).await;
    let older = fixture.http.get("/metrics").await;
    assert_eq!(older.header("content-type"), Some("text/plain; version=0.0.4; charset=utf-8"));
    let older = Exposition::older(&older.text);
    // A sample that appears with its first value may have got it between the two readings: from the first reading, or
    // from upkeep.
    let new = |labels: &Labels| labels.get("route").is_some_and(|route| route == "/metrics");
    let new = |labels: &Labels| new(labels) || labels.contains_key("call");
    let of_upkeep = ["slotwheel_upkeep_lag_seconds", "slotwheel_upkeep_run_duration_seconds"];
    let of_upkeep = |name: &str| of_upkeep.iter().any(|family| name.starts_with(family));
    let all = |metrics: &Exposition| {
        let series = metrics.samples().filter(|(name, labels, _)| !new(labels) && !of_upkeep(name));
        series.map(|(name, labels, _)| (name.clone(), labels.clone())).collect::<BTreeSet<_>>()
    };
    assert_eq!(all(&open), all(&older));
    assert_eq!(open.names(), older.names());
    for name in ["slotwheel_tasks", "slotwheel_queue_tasks", "slotwheel_transitions_total"] {
        let values = |metrics: &Exposition| {
            let own = metrics.samples().filter(|(own, _, _)| own == name);
            own.map(|(_, labels, value)| (labels.clone(), value.to_string())).collect::<BTreeMap<_, _>>()
        };
        assert!(values(&open).values().any(|value| value != "0"), "{name}");
        assert_eq!(values(&open), values(&older), "{name}");
    }

    for (name, family) in &open.0 {
        assert!(name.starts_with("slotwheel_") || name == "process_start_time_seconds", "{name}");
        // Names end with a base unit, and contain no other.
        assert_eq!(
            family.unit.as_deref(),
            ["seconds", "bytes"].into_iter().find(|unit| name.ends_with(unit)),
            "{name}"
        );
        assert!(["_ms", "_millis", "_micros", "_total"].iter().all(|end| !name.ends_with(end)), "{name}");
        assert!(family.help.ends_with('.') && !family.help.ends_with(".."), "{name}: {}", family.help);
    }
    let labels: BTreeSet<&str> = open.samples().flat_map(|(_, labels, _)| labels.keys().map(String::as_str)).collect();
    let known = "call code kind le method operation queue reason route state transition upkeep_job version";
    let known = known.split(' ').collect();
    assert!(labels.is_subset(&known), "{labels:?}");
    fixture.end().await;
}

#[tokio::test]
async fn transitions_are_counted_once_and_repetitions_not() {
    let fixture = Fixture::start().await;
    assert_eq!(transitions(&metrics(&fixture).await), BTreeMap::new());

    // Submits six tasks, two of them in a batch; another submit is deduplicated.
    let slow = json!({"kind": "fixed", "base_ms": 3_600_000, "jitter": "none"});
    for queue in ["done", "released", "called-off"] {
        fixture.submit(queue, json!(1)).await;
    }
    let last = json!({"queue": "last", "payload": 1, "max_attempts": 1});
    fixture.submit_with(last.clone()).await;
    let two = [
        json!({"queue": "flagged", "payload": 1, "backoff": slow}),
        json!({"queue": "failing", "payload": 1, "backoff": slow, "dedupe": {"key": "k"}}),
    ];
    fixture.http.post("/tasks/batch", &json!({"tasks": two})).await.expect(200);
    fixture.http.post("/tasks", &two[1]).await.expect(200);

    let done = fixture.claim_one("done").await;
    fixture.http.post("/complete", &report(&done)).await.expect(200);
    fixture.http.post("/complete", &report(&done)).await.expect(200);
    let released = fixture.claim_one("released").await;
    fixture.http.post("/release", &report(&released)).await.expect(200);
    let failing = fixture.claim_one("failing").await;
    let failure = report_with(&failing, json!({"error": {"type": "e", "message": "m"}}));
    fixture.http.post("/fail", &failure).await.expect(200);
    fixture.http.post("/fail", &failure).await.expect(200);
    let called_off =
        fixture.http.get("/tasks?queue=called-off&state=ready").await.expect(200)["tasks"][0]["id"].clone();
    let cancel = format!("/tasks/{}/cancel", text(&called_off));
    fixture.http.post_nothing(&cancel).await.expect(200);
    fixture.http.post_nothing(&cancel).await.expect(200);
    fixture.http.delete(&format!("/tasks/{}", text(&called_off))).await.expect(204);

    let mut expected: BTreeMap<String, u64> = BTreeMap::new();
    let mut add = |names: &[(&str, u64)]| {
        for (name, count) in names {
            *expected.entry((*name).to_owned()).or_default() += count;
        }
        expected.clone()
    };
    let so_far = add(&[
        ("submitted", 6),
        ("claimed", 3),
        ("completed", 1),
        ("released", 1),
        ("failed", 1),
        ("cancelled", 1),
        ("deleted", 1),
    ]);
    assert_eq!(transitions(&metrics(&fixture).await), so_far);

    // Upkeep: two leases expire, one of them ending its task and one with a requested cancel; a delay ends; a deadline
    // passes.
    let last = fixture.claim_one("last").await;
    let flagged = fixture.claim_one("flagged").await;
    fixture.http.post_nothing(&format!("/tasks/{}/cancel", text(&flagged["id"]))).await.expect(200);
    let delayed = fixture.submit_with(json!({"queue": "delayed", "payload": 1, "delay_ms": 100_000})).await;
    let short = fixture.submit_with(json!({"queue": "short", "payload": 1, "expires_in_ms": 100_000})).await;
    fixture.advance(110_000);
    fixture.until_state(&last["id"], "dead").await;
    fixture.until_state(&flagged["id"], "cancelled").await;
    fixture.until_state(&delayed["id"], "ready").await;
    fixture.until_state(&short["id"], "expired").await;
    fixture.http.post_nothing(&format!("/tasks/{}/retry", text(&last["id"]))).await.expect(200);
    let all = add(&[
        ("submitted", 2),
        ("claimed", 2),
        ("lease_expired", 2),
        ("dead", 1),
        ("cancelled", 1),
        ("promoted", 1),
        ("expired", 1),
        ("retried", 1),
    ]);
    // Other servers see the state before upkeep has read the reply that it counts.
    fixture.until(|| async { (transitions(&metrics(&fixture).await) == all).then_some(()) }).await;
    let metrics = metrics(&fixture).await;
    for job in ["expire_leases", "promote", "expire_tasks"] {
        assert!(metrics.count("slotwheel_upkeep_lag_seconds_count", &[("upkeep_job", job)]) >= 1.0, "{job}");
        assert!(metrics.count("slotwheel_upkeep_lag_seconds_sum", &[("upkeep_job", job)]) >= 10.0, "{job}");
        assert!(metrics.count("slotwheel_upkeep_run_duration_seconds_count", &[("upkeep_job", job)]) >= 1.0, "{job}");
    }
    fixture.end().await;
}

#[tokio::test]
async fn requests_are_counted_by_route_and_long_polls_timed_apart() {
    let fixture = Fixture::start().await;
    let requests = |metrics: &Exposition, method: &str, route: &str, code: &str| {
        let labels = [("method", method), ("route", route), ("code", code)];
        metrics.count("slotwheel_http_requests_total", &labels) as u64
    };
    for _ in 0..3 {
        fixture.submit("q", json!(1)).await;
    }
    fixture.http.post("/tasks", &json!({"queue": 7})).await.expect(422);
    let id = fixture.claim_one("q").await["id"].clone();
    fixture.task(&id).await;
    fixture.http.get("/tasks/none").await.expect(400);
    fixture.http.get("/tasks/none/at/all").await.expect(404);
    fixture.http.send(Method::PATCH, "/claim", &[], None).await.expect(405);
    let odd = Method::from_bytes(b"BREW").unwrap();
    fixture.http.send(odd, "/claim", &[], None).await.expect(405);
    reqwest::Client::new().head(format!("http://{}/livez", fixture.http.address)).send().await.unwrap();
    let cross = [("origin", "https://elsewhere.example"), ("sec-fetch-site", "cross-site")];
    fixture.http.post_with("/release", &cross, b"{}").await.expect(403);
    // Waits without a result.
    let empty = json!({"queues": ["empty"], "wait_ms": 300});
    assert_eq!(fixture.http.post("/claim", &empty).await.expect(200)["tasks"], json!([]));
    fixture.claim_now("q", 1).await;
    fixture.http.get(&format!("/tasks/{}?wait_ms=50", text(&id))).await.expect(200);
    let (rest, last) = text(&id).split_at(text(&id).len() - 1);
    let unknown = format!("{rest}{}", if last == "0" { "1" } else { "0" });
    fixture.http.get(&format!("/tasks/{unknown}?wait_ms=50")).await.expect(404);

    let metrics = metrics(&fixture).await;
    assert_eq!(requests(&metrics, "POST", "/tasks", "201"), 3);
    assert_eq!(requests(&metrics, "POST", "/tasks", "422"), 1);
    assert_eq!(requests(&metrics, "POST", "/claim", "200"), 3);
    assert_eq!(requests(&metrics, "other", "/claim", "405"), 2);
    assert_eq!(requests(&metrics, "GET", "/tasks/{id}", "200"), 2);
    assert_eq!(requests(&metrics, "GET", "/tasks/{id}", "400"), 1);
    assert_eq!(requests(&metrics, "GET", "/tasks/{id}", "404"), 1);
    assert_eq!(requests(&metrics, "other", "unmatched", "404"), 1);
    assert_eq!(requests(&metrics, "HEAD", "/livez", "200"), 1);
    assert_eq!(requests(&metrics, "POST", "/release", "403"), 1);

    let times = |what: &str, method: &str, route: &str, part: &str| {
        metrics
            .count(&format!("slotwheel_http_{what}_duration_seconds_{part}"), &[("method", method), ("route", route)])
    };
    assert_eq!(times("request", "POST", "/tasks", "count"), 4.0);
    // One claim did not wait; one waited without a result, and one got its task at once.
    assert_eq!(times("request", "POST", "/claim", "count"), 1.0);
    assert_eq!(times("long_poll", "POST", "/claim", "count"), 2.0);
    assert!(times("long_poll", "POST", "/claim", "sum") >= 0.3);
    assert_eq!(times("request", "GET", "/tasks/{id}", "count"), 2.0);
    assert_eq!(times("long_poll", "GET", "/tasks/{id}", "count"), 2.0);
    assert_eq!(metrics.count("slotwheel_delivery_duration_seconds_count", &[]), 2.0);
    assert!(metrics.count("slotwheel_delivery_duration_seconds_sum", &[]) < 20.0);
    fixture.end().await;
}

#[tokio::test]
async fn calls_are_counted_by_script_and_batch_items_by_operation() {
    let fixture = Fixture::start().await;
    let tasks: Vec<Value> = (0..10).map(|number| json!({"queue": "q", "payload": number})).collect();
    fixture.http.post("/tasks/batch", &json!({"tasks": tasks})).await.expect(200);
    let claimed = fixture.claim_now("q", 10).await;
    let completions: Vec<Value> = claimed.iter().map(report).collect();
    fixture.http.post("/complete/batch", &json!({"completions": completions})).await.expect(200);
    let metrics = metrics(&fixture).await;
    for (verb, items) in [("submit", 10.0), ("complete", claimed.len() as f64)] {
        assert_eq!(metrics.count("slotwheel_batch_items_sum", &[("operation", verb)]), items, "{verb}");
        let calls = metrics.count("slotwheel_batch_items_count", &[("operation", verb)]);
        assert_eq!(metrics.count("slotwheel_redis_call_duration_seconds_count", &[("call", verb)]), calls, "{verb}");
    }
    assert_eq!(metrics.count("slotwheel_claim_call_tasks_sum", &[]), claimed.len() as f64);
    let claim_calls = metrics.count("slotwheel_claim_call_waiters_count", &[]);
    assert_eq!(metrics.count("slotwheel_redis_call_duration_seconds_count", &[("call", "claim")]), claim_calls);
    assert_eq!(metrics.sum("slotwheel_redis_errors_total"), 0.0);
    fixture.end().await;
}

#[tokio::test]
async fn failures_are_counted_from_zero() {
    let fixture = Fixture::start().await;
    let metrics = metrics(&fixture).await;
    for (route, code) in [("/claim", "500"), ("/claim", "503"), ("/tasks", "507"), ("/tasks/batch", "507")] {
        let labels = [("method", "POST"), ("route", route), ("code", code)];
        assert_eq!(metrics.value("slotwheel_http_requests_total", &labels), Some(0.0), "{labels:?}");
    }
    let abandoned = [("method", "GET"), ("route", "/tasks/{id}")];
    assert_eq!(metrics.value("slotwheel_http_requests_abandoned_total", &abandoned), Some(0.0));
    for job in ["promote", "expire_leases", "expire_tasks", "purge_retention", "dataset_heartbeat"] {
        assert_eq!(metrics.value("slotwheel_upkeep_failures_total", &[("upkeep_job", job)]), Some(0.0), "{job}");
    }
    fixture.end().await;
}

#[tokio::test]
async fn metrics_and_contract_are_compressed_for_a_client_that_accepts_it() {
    let fixture = Fixture::start().await;
    let get = async |path: &str, encoding: &str| {
        let mut raw = Raw::connect(fixture.http.address).await;
        let accept = format!("accept-encoding: {encoding}\r\nconnection: close");
        raw.send(&format!("GET {path} HTTP/1.1\r\nhost: x\r\n{accept}\r\n\r\n")).await;
        let mut response = Vec::new();
        raw.stream.read_to_end(&mut response).await.unwrap();
        response
    };
    for path in ["/metrics", "/openapi.yaml", "/docs/rapidoc.js"] {
        let compressed = get(path, "gzip").await;
        assert!(String::from_utf8_lossy(&compressed).contains("content-encoding: gzip"), "{path}");
        assert!(get(path, "identity").await.len() > 2 * compressed.len(), "{path}");
    }
    fixture.end().await;
}

#[tokio::test]
async fn wakeups_and_undelivered_leases_are_counted() {
    // With one shard, the first call of the claim gets the task.
    let fixture = Fixture::with_shards(1).await;
    let heard = |metrics: &Exposition| metrics.count("slotwheel_wakeups_total", &[("kind", "ready")]);
    // The server is subscribed from here on.
    let hears = |metrics: &Exposition| metrics.count("slotwheel_wakeups_total", &[("kind", "gap")]) >= 1.0;
    fixture.until(|| async { hears(&metrics(&fixture).await).then_some(()) }).await;
    let mut raw = Raw::connect(fixture.http.address).await;
    raw.send(&post("/claim", r#"{"queues":["q"],"wait_ms":60000}"#)).await;
    fixture
        .until(|| async { (metrics(&fixture).await.count("slotwheel_waiting_requests", &[]) == 1.0).then_some(()) })
        .await;
    fixture
        .until(|| async { (metrics(&fixture).await.count("slotwheel_polls_total", &[]) >= 1.0).then_some(()) })
        .await;
    drop(raw);
    fixture
        .until(|| async { (metrics(&fixture).await.count("slotwheel_waiting_requests", &[]) == 0.0).then_some(()) })
        .await;
    let abandoned = |metrics: &Exposition| {
        metrics.count("slotwheel_http_requests_abandoned_total", &[("method", "POST"), ("route", "/claim")])
    };
    fixture.until(|| async { (abandoned(&metrics(&fixture).await) >= 1.0).then_some(()) }).await;
    assert_eq!(abandoned(&metrics(&fixture).await), 1.0);
    assert_eq!(heard(&metrics(&fixture).await), 0.0);
    fixture.submit("q", json!(1)).await;
    fixture.until(|| async { (heard(&metrics(&fixture).await) >= 1.0).then_some(()) }).await;

    // The client disconnects during its claim, and its task is released.
    fixture.redis.freeze();
    let mut raw = Raw::connect(fixture.http.address).await;
    raw.send(&post("/claim", r#"{"queues":["q"],"wait_ms":60000}"#)).await;
    let waiting = |count: f64| {
        let fixture = &fixture;
        async move {
            let now = metrics(fixture).await;
            (now.count("slotwheel_waiting_requests", &[]) == count).then_some(())
        }
    };
    fixture.until(|| waiting(1.0)).await;
    drop(raw);
    fixture.until(|| waiting(0.0)).await;
    fixture.redis.thaw();
    let released = || async {
        (metrics(&fixture).await.count("slotwheel_undelivered_leases_released_total", &[]) == 1.0).then_some(())
    };
    fixture.until(released).await;
    assert_eq!(transitions(&metrics(&fixture).await)["released"], 1);
    fixture.end().await;
}

#[tokio::test]
async fn ended_lease_is_not_released_as_undelivered() {
    let fixture = Fixture::start().await;
    let (tasks, stop) = (TaskTracker::new(), CancellationToken::new());
    let (store, poll_interval) = (fixture.store().await, Duration::from_millis(100));
    let dispatch = Dispatch::start(store, poll_interval, &fixture.config.limits, Spans::default(), &tasks, &stop);
    let request = ClaimRequest {
        queues: vec![QueueName::parse("q").unwrap()],
        max: 1,
        lease_ms: 600_000,
        worker: "w".into(),
        claim_id: None,
    };
    let mut deliveries = Vec::new();
    // Both tasks have one key, so one shard: the second claim uses the connection of the first.
    for number in 0..2 {
        fixture.submit_with(json!({"queue": "q", "payload": number, "key": "k"})).await;
        deliveries.push(dispatch.claim(request.clone(), Duration::from_secs(10)).await.unwrap());
    }
    drop(deliveries.pop());
    let released = || {
        let counters = dispatch.metrics().counters.read();
        counters.into_iter().find(|(name, _, _)| *name == "undelivered_leases_released").map(|(_, _, count)| count)
    };
    fixture.until(|| async { (released() == Some(1)).then_some(()) }).await;
    fixture.until(|| async { (fixture.counts("q").await["ready"] == 1).then_some(()) }).await;

    let late = deliveries.pop().unwrap();
    let done = json!({"id": late.tasks()[0].id.to_string(), "lease": late.tasks()[0].lease.to_string()});
    fixture.http.post("/complete", &done).await.expect(200);
    let busy = tasks.len();
    drop(late);
    assert_eq!(tasks.len(), busy + 1, "the release is attempted");
    fixture.until(|| async { (tasks.len() == busy).then_some(()) }).await;
    assert_eq!(released(), Some(1));
    stop.cancel();
    drop(dispatch);
    tasks.close();
    tasks.wait().await;
    fixture.end().await;
}
