//! `/metrics`: well formed, bounded whatever comes, exact about what was done, and there when Redis is not.

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

use futures_util::future::join_all;
use reqwest::Method;
use serde_json::{Value, json};
use slotwheel::dispatch::{ClaimRequest, Dispatch};
use slotwheel::domain::queue::QueueName;
use slotwheel::spans::Spans;
use slotwheel::store::views::queue_stats;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::support::exposition::{Exposition, Labels};
use crate::support::raw_client::{Raw, post};
use crate::support::redis::Flavour;
use crate::support::{Answer, Fixture, Http, report, report_with, text};

const OPENMETRICS: &str = "application/openmetrics-text; version=1.0.0";

async fn metrics_of(http: &Http) -> Exposition {
    let answer = http.send(Method::GET, "/metrics", &[("accept", OPENMETRICS)], None).await;
    assert_eq!(answer.header("content-type"), Some("application/openmetrics-text; version=1.0.0; charset=utf-8"));
    Exposition::open(&answer.text)
}

pub async fn metrics(fixture: &Fixture) -> Exposition {
    metrics_of(&fixture.http).await
}

/// What happened to tasks.
fn transitions(metrics: &Exposition) -> BTreeMap<String, u64> {
    let family = &metrics.0["slotwheel_transitions"];
    let each = family.samples.iter().map(|(_, labels, count)| (labels["transition"].clone(), *count as u64));
    each.filter(|(_, count)| *count > 0).collect()
}

/// A little of everything.
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
    // What appears with its first value may have had it between the two: that of the first reading, or of upkeep.
    let new = |labels: &Labels| labels.get("route").is_some_and(|route| route == "/metrics");
    let new = |labels: &Labels| new(labels) || labels.contains_key("call") || labels.contains_key("work");
    let all = |metrics: &Exposition| {
        let series = metrics.samples().filter(|(_, labels, _)| !new(labels));
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
        // Base units, named at the end, and nothing that looks like another one.
        assert_eq!(
            family.unit.as_deref(),
            ["seconds", "bytes"].into_iter().find(|unit| name.ends_with(unit)),
            "{name}"
        );
        assert!(["_ms", "_millis", "_micros", "_total"].iter().all(|end| !name.ends_with(end)), "{name}");
        assert!(family.help.ends_with('.') && !family.help.ends_with(".."), "{name}: {}", family.help);
    }
    let labels: BTreeSet<&str> = open.samples().flat_map(|(_, labels, _)| labels.keys().map(String::as_str)).collect();
    let known = "call code kind le method operation queue reason route state transition version work";
    let known = known.split(' ').collect();
    assert!(labels.is_subset(&known), "{labels:?}");
    fixture.end().await;
}

#[tokio::test]
async fn transitions_are_counted_once_and_repetitions_not() {
    let fixture = Fixture::start().await;
    assert_eq!(transitions(&metrics(&fixture).await), BTreeMap::new());

    // Submitted: six, two in a batch; one that its dedupe key keeps out.
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

    // What upkeep does: two leases run out, one ends its task and one that is flagged; a delay is over; a deadline is.
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
    // The state is seen by others before upkeep has read the answer that it counts.
    fixture.until(|| async { (transitions(&metrics(&fixture).await) == all).then_some(()) }).await;
    let metrics = metrics(&fixture).await;
    for work in ["due", "deadline"] {
        assert!(metrics.count("slotwheel_upkeep_lag_seconds_count", &[("work", work)]) >= 1.0, "{work}");
        assert!(metrics.count("slotwheel_upkeep_lag_seconds_sum", &[("work", work)]) >= 10.0, "{work}");
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
    // Waits in vain.
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
    // One claim did not want to wait; one waited in vain, and one got its task at once.
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
    let looks = metrics.count("slotwheel_claim_call_waiters_count", &[]);
    assert_eq!(metrics.count("slotwheel_redis_call_duration_seconds_count", &[("call", "claim")]), looks);
    assert_eq!(metrics.sum("slotwheel_redis_errors_total"), 0.0);
    fixture.end().await;
}

#[tokio::test]
async fn wakeups_and_undelivered_leases_are_counted() {
    // One shard: the first call of the claim is the one that gets the task.
    let fixture = Fixture::with_shards(1).await;
    let heard = |metrics: &Exposition| metrics.count("slotwheel_wakeups_total", &[("kind", "ready")]);
    // From then on it hears.
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

    // It goes while its claim is under way, and its task is given back.
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
    let given_back = || async {
        (metrics(&fixture).await.count("slotwheel_undelivered_leases_released_total", &[]) == 1.0).then_some(())
    };
    fixture.until(given_back).await;
    assert_eq!(transitions(&metrics(&fixture).await)["released"], 1);
    fixture.end().await;
}

#[tokio::test]
async fn ended_lease_is_not_released_as_undelivered() {
    let fixture = Fixture::start().await;
    let (tasks, stop) = (TaskTracker::new(), CancellationToken::new());
    let (store, sweep) = (fixture.store().await, Duration::from_millis(100));
    let dispatch = Dispatch::start(store, sweep, &fixture.config.limits, Spans::default(), &tasks, &stop);
    let request = ClaimRequest {
        queues: vec![QueueName::parse("q").unwrap()],
        max: 1,
        lease_ms: 600_000,
        worker: "w".into(),
        claim: None,
    };
    let mut deliveries = Vec::new();
    // Of one key, so of one shard: the second goes the way that the first has opened.
    for number in 0..2 {
        fixture.submit_with(json!({"queue": "q", "payload": number, "key": "k"})).await;
        deliveries.push(dispatch.claim(request.clone(), Duration::from_secs(10)).await.unwrap());
    }
    drop(deliveries.pop());
    fixture.until(|| async { (dispatch.metrics().undelivered_released() == 1).then_some(()) }).await;
    fixture.until(|| async { (fixture.counts("q").await["ready"] == 1).then_some(()) }).await;

    let late = deliveries.pop().unwrap();
    let done = json!({"id": late.tasks()[0].id.to_string(), "lease": late.tasks()[0].lease.to_string()});
    fixture.http.post("/complete", &done).await.expect(200);
    let busy = tasks.len();
    drop(late);
    assert_eq!(tasks.len(), busy + 1, "it is tried");
    fixture.until(|| async { (tasks.len() == busy).then_some(()) }).await;
    assert_eq!(dispatch.metrics().undelivered_released(), 1);
    stop.cancel();
    drop(dispatch);
    tasks.close();
    tasks.wait().await;
    fixture.end().await;
}

#[tokio::test]
async fn dataset_metrics_agree_on_all_servers_and_server_metrics_do_not() {
    let mut fixture = Fixture::start().await;
    let other = fixture.another_server().await;
    for _ in 0..3 {
        fixture.submit("q", json!(1)).await;
    }
    fixture.submit_with(json!({"queue": "later", "payload": 1, "delay_ms": 600_000})).await;
    fixture.claim_one("q").await;
    fixture.http.post_nothing("/queues/later/pause").await.expect(200);
    fixture.advance(30_000);
    for http in [&fixture.http, &other] {
        let metrics = metrics_of(http).await;
        for (state, count) in [("ready", 2.0), ("leased", 1.0), ("scheduled", 1.0), ("dead", 0.0), ("completed", 0.0)] {
            assert_eq!(metrics.value("slotwheel_tasks", &[("state", state)]), Some(count), "{state}");
        }
        let of =
            |queue: &str, state: &str| metrics.value("slotwheel_queue_tasks", &[("queue", queue), ("state", state)]);
        assert_eq!((of("q", "ready"), of("later", "ready")), (Some(2.0), Some(0.0)));
        assert_eq!((of("q", "scheduled"), of("later", "scheduled")), (Some(0.0), Some(1.0)));
        let age = metrics.value("slotwheel_queue_oldest_ready_age_seconds", &[("queue", "q")]).unwrap();
        assert!((30.0..60.0).contains(&age), "{age}");
        assert_eq!(metrics.value("slotwheel_queue_oldest_ready_age_seconds", &[("queue", "later")]), None);
        assert_eq!(metrics.value("slotwheel_queue_paused", &[("queue", "q")]), Some(0.0));
        assert_eq!(metrics.value("slotwheel_queue_paused", &[("queue", "later")]), Some(1.0));
        assert_eq!(metrics.value("slotwheel_queues_truncated", &[]), Some(0.0));
        assert_eq!(metrics.value("slotwheel_redis_up", &[]), Some(1.0));
        assert_eq!(metrics.value("slotwheel_build_info", &[("version", env!("CARGO_PKG_VERSION"))]), Some(1.0));
    }
    assert_eq!(transitions(&metrics_of(&other).await), BTreeMap::new());

    // Nobody does what is due.
    fixture.stop_servers().await;
    fixture.advance(700_000);
    let seen = queue_stats::dataset_stats(&fixture.store().await).await.unwrap();
    assert!((100_000..1_000_000).contains(&seen.overdue_ms), "{}", seen.overdue_ms);
    fixture.end().await;
}

#[tokio::test]
async fn metrics_size_does_not_grow_with_queues_or_paths() {
    let fixture = Fixture::start().await;
    let queues = if Flavour::of_this_run() == Flavour::Single { 10_000 } else { 2_000 };
    for first in (0..queues).step_by(1000) {
        let task = |number: usize| json!({"queue": format!("q{number:05}"), "payload": 1});
        let tasks: Vec<Value> = (first..first + 1000).map(task).collect();
        fixture.http.post("/tasks/batch", &json!({"tasks": tasks})).await.expect(200);
    }
    // Behind 250 others of the same priority, and before all the rest.
    for _ in 0..20 {
        fixture.submit("q00200-full", json!(1)).await;
    }
    // Of the least priority, and of a name in the middle.
    for _ in 0..20 {
        fixture.submit_with(json!({"queue": "q00500-low", "payload": 1, "priority": 0})).await;
    }
    // One that waits behind all of a better priority, in slots of their own.
    let body = json!({"queue": "q00500-starved", "payload": 1, "priority": 0, "key": "starved"});
    let starved = fixture.submit_with(body).await;
    fixture.advance(3_600_000);
    let better = |key: usize| json!({"queue": "q00500-starved", "payload": 1, "priority": 9, "key": format!("{key}")});
    let better: Vec<Value> = (0..60).map(better).collect();
    fixture.http.post("/tasks/batch", &json!({"tasks": better})).await.expect(200);
    // However many read at once, none of them waits so long that Redis seems away. They do not look at what they read
    // meanwhile: the server is in this thread too.
    let mut hasty = fixture.http.clone();
    hasty.check = |_, _, _| ();
    let readings = join_all((0..200).map(|_| hasty.get("/metrics"))).await;
    let up = |answer: &Answer| answer.text.contains("slotwheel_redis_up 1\n");
    assert_eq!(readings.iter().filter(|answer| up(answer)).count(), readings.len());

    let before = metrics(&fixture).await;
    assert_eq!(before.value("slotwheel_queues_truncated", &[]), Some(1.0));
    assert_eq!(before.values_of("queue").len(), queue_stats::MAX_QUEUES);
    assert_eq!(before.value("slotwheel_tasks", &[("state", "ready")]), Some(queues as f64 + 101.0));
    let ready = |queue: &str| before.value("slotwheel_queue_tasks", &[("queue", queue), ("state", "ready")]);
    let in_many_shards = Flavour::of_this_run() == Flavour::Cluster;
    assert!(in_many_shards || ready("q00200-full") == Some(20.0));
    assert_eq!(ready("q00500-low"), Some(20.0));
    assert_eq!(ready("q00500-starved"), Some(61.0));
    let age = before.value("slotwheel_queue_oldest_ready_age_seconds", &[("queue", "q00500-starved")]).unwrap();
    assert!(age >= 3600.0, "{age}: {} is not seen", starved["id"]);

    for number in 0..200 {
        let odd = Method::from_bytes(format!("M{number}").as_bytes()).unwrap();
        fixture.http.send(odd, &format!("/random/{number}"), &[], None).await.expect(404);
        fixture.http.get(&format!("/tasks/{number}")).await.expect(400);
        fixture.http.get(&format!("/queues/none-{number}")).await.expect(404);
    }
    let after = metrics(&fixture).await;
    let templates: BTreeSet<&str> = slotwheel::api::route_table().into_iter().map(|(_, path, _)| path).collect();
    let routes = after.values_of("route");
    assert!(routes.iter().all(|route| templates.contains(route) || *route == "unmatched"), "{routes:?}");
    let methods = after.values_of("method");
    assert!(methods.iter().all(|method| ["GET", "POST", "DELETE", "other"].contains(method)), "{methods:?}");
    // Three routes were new.
    assert!(after.samples().count() < before.samples().count() + 3 * 40);
    fixture.end().await;
}

#[tokio::test]
async fn metrics_are_served_while_redis_is_frozen_or_down() {
    let mut fixture = Fixture::start().await;
    use_it(&fixture).await;
    let there = |metrics: &Exposition| {
        let of_redis =
            ["tasks", "queue_tasks", "queue_oldest_ready_age_seconds", "queue_paused", "upkeep_overdue_seconds"];
        of_redis.map(|name| metrics.0.contains_key(&format!("slotwheel_{name}")))
    };
    fixture.redis.freeze();
    let began = Instant::now();
    let frozen = metrics(&fixture).await;
    assert!(began.elapsed() < Duration::from_secs(4), "{:?}", began.elapsed());
    assert_eq!(frozen.value("slotwheel_redis_up", &[]), Some(0.0));
    assert_eq!(there(&frozen), [false; 5]);
    assert_eq!(transitions(&frozen)["completed"], 1);
    fixture.redis.thaw();
    let up = || async { (metrics(&fixture).await.value("slotwheel_redis_up", &[]) == Some(1.0)).then_some(()) };
    fixture.until(up).await;
    assert_eq!(there(&metrics(&fixture).await), [true; 5]);

    fixture.redis.kill();
    fixture.http.post("/tasks", &json!({})).await.expect(503);
    fixture.http.post("/tasks", &json!({})).await.expect(503);
    let began = Instant::now();
    let gone = metrics(&fixture).await;
    assert!(began.elapsed() < Duration::from_secs(4), "{:?}", began.elapsed());
    assert_eq!(gone.value("slotwheel_redis_up", &[]), Some(0.0));
    assert_eq!(there(&gone), [false; 5]);
    assert!(gone.count("slotwheel_redis_errors_total", &[("kind", "unavailable")]) >= 1.0);
    assert!(gone.count("slotwheel_redis_retries_total", &[]) >= 1.0);
    assert!(gone.count("slotwheel_redis_calls_rejected_total", &[]) >= 1.0);
    let failed = [("method", "POST"), ("route", "/tasks"), ("code", "503")];
    assert_eq!(gone.count("slotwheel_http_requests_total", &failed), 2.0);

    fixture.redis.restart().await;
    fixture.until(|| async { fixture.http.is_ready().await.then_some(()) }).await;
    fixture.end().await;
}
