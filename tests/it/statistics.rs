//! The throughput model of `/stats`: counters that all servers share, and null for unknown figures.

mod counters;

use std::time::Instant;

use serde_json::{Value, json};
use slotwheel::domain::erlang;
use slotwheel::domain::queue::QueueName;
use slotwheel::store::views::stats::read_window;

use crate::support::{Fixture, report, report_with, text};

/// Reads the figures of a queue over a window that contains everything done so far.
async fn stats(fixture: &Fixture, queue: &str) -> Value {
    fixture.advance(6000);
    fixture.http.get(&format!("/stats?queue={queue}")).await.expect(200)
}

fn near(value: &Value, wanted: f64) -> bool {
    value.as_f64().is_some_and(|value| (value - wanted).abs() < 1e-9)
}

#[tokio::test]
async fn task_that_takes_two_leases_offers_the_load_of_two() {
    let fixture = Fixture::start().await;
    for number in 0..5 {
        fixture.submit("q", json!(number)).await;
    }
    let again = json!({"error": {"message": "again"}, "retry_in_ms": 0});
    for attempt in 0..2 {
        for _ in 0..5 {
            let task = fixture.claim_one("q").await;
            fixture.advance(100);
            match attempt {
                0 => fixture.http.post("/fail", &report_with(&task, again.clone())).await.expect(200),
                _ => fixture.http.post("/complete", &report(&task)).await.expect(200),
            };
        }
    }
    fixture.advance(6000);
    let stats = fixture
        .until(|| async {
            let stats = fixture.http.get("/stats?queue=q").await.expect(200);
            (stats["n"] != 0).then_some(stats)
        })
        .await;
    let figure = |name: &str| stats[name].as_f64().unwrap_or_else(|| panic!("{name}: {stats}"));
    assert_eq!((stats["submitted"].as_u64(), stats["returned"].as_u64()), (Some(5), Some(5)));
    assert!((figure("offered_load") - 2.0 * figure("m") / figure("c")).abs() < 1e-9, "{stats}");
    assert!((figure("utilisation") - figure("offered_load") / figure("n")).abs() < 1e-9, "{stats}");
    fixture.end().await;
}

#[tokio::test]
async fn transition_is_counted_once_for_its_queue_and_in_total() {
    let fixture = Fixture::start().await;
    let begun = Instant::now();
    for queue in ["a", "a", "a", "a", "a", "b"] {
        fixture.submit(queue, json!(1)).await;
    }
    // One by one, because a claim returns tasks of one shard.
    let mut tasks = Vec::new();
    for _ in 0..4 {
        tasks.extend(fixture.claim_now("a", 1).await);
    }
    fixture.advance(200);
    fixture.http.post("/complete", &report(&tasks[0])).await.expect(200);
    // A repeated request is not counted.
    fixture.http.post("/complete", &report(&tasks[0])).await.expect(200);
    let error = json!({"error": {"type": "t", "message": "m"}, "retry": false});
    fixture.http.post("/fail", &report_with(&tasks[1], error)).await.expect(200);
    fixture.http.post("/release", &report(&tasks[2])).await.expect(200);
    fixture.advance(100_000);
    fixture.until_lease_ends(&tasks[3]["id"]).await;
    fixture.advance(6000);

    let mut read = Vec::new();
    for queue in ["&queue=a", "&queue=b", ""] {
        read.push(fixture.http.get(&format!("/stats?window_ms=300000{queue}")).await.expect(200));
    }
    let [a, b, all] = &read[..] else { panic!("three answers") };

    let counted = |stats: &Value| {
        let names = ["submitted", "claimed", "completed", "failed", "released", "lease_expired"];
        names.map(|name| stats[name].as_u64().expect("a number"))
    };
    assert_eq!(counted(a), [5, 4, 1, 1, 1, 1]);
    assert_eq!(counted(b), [1, 0, 0, 0, 0, 0]);
    assert_eq!(counted(all), [6, 4, 1, 1, 1, 1]);
    // The released one and the expired one.
    assert_eq!((&a["returned"], &b["returned"], &all["returned"]), (&json!(2), &json!(0), &json!(2)));
    // Three leases of 200 ms plus request times, and the expired lease with its 60 s, independent of when upkeep ran.
    let (store, queue) = (fixture.store().await, QueueName::parse("a").unwrap());
    let leased_ms = read_window(&store, Some(&queue), 60).await.unwrap().counters.leased_ms;
    let more = 3 * begun.elapsed().as_millis() as u64;
    assert!((60_600..=60_600 + more).contains(&leased_ms), "{leased_ms}");
    assert!(near(&a["m"], 5.0 / 300.0) && near(&all["m"], 6.0 / 300.0), "{a} {all}");
    assert_eq!((&a["queue"], &all["queue"], &a["window_ms"]), (&json!("a"), &Value::Null, &json!(300_000)));
    fixture.end().await;
}

#[tokio::test]
async fn lease_and_wait_durations_are_measured_in_redis_time() {
    let fixture = Fixture::start().await;
    let begun = Instant::now();
    for _ in 0..3 {
        fixture.submit("q", json!(1)).await;
        fixture.advance(1000);
        let task = &fixture.claim_now("q", 1).await[0];
        fixture.advance(250);
        fixture.http.post("/complete", &report(task)).await.expect(200);
    }
    // Upper bound of the time that Redis' clock advanced between the requests.
    let more = begun.elapsed().as_secs_f64() * 1000.0 + 2.0;
    fixture.advance(6000);
    // Waits until the server has written its workers.
    let stats = fixture
        .until(|| async {
            let stats = fixture.http.get("/stats?queue=q").await.expect(200);
            (stats["n"] == 1).then_some(stats)
        })
        .await;
    let mean = stats["wait_mean_ms"].as_f64().unwrap();
    assert!((1000.0..1000.0 + more).contains(&mean), "{stats}");
    let p50 = stats["wait_p50_ms"].as_f64().unwrap();
    assert!((960.0..(1000.0 + more) * 1.0625).contains(&p50), "{stats}");
    let c = stats["c"].as_f64().unwrap();
    assert!((1000.0 / (250.0 + more)..=4.0).contains(&c), "{stats}");
    // Three tasks in a minute, at concurrency 1.
    assert!(near(&stats["m"], 0.05) && stats["n"] == 1, "{stats}");
    let s = stats["s"].as_f64().unwrap();
    assert!((0.0124..=0.05 * (0.25 + more / 1000.0)).contains(&s), "{stats}");
    fixture.end().await;
}

#[tokio::test]
async fn figures_have_their_own_names() {
    let fixture = Fixture::start().await;
    for _ in 0..9 {
        fixture.submit("q", json!(1)).await;
    }
    fixture.submit_with(json!({"queue": "q", "payload": 1, "delay_ms": 3_600_000})).await;
    let claim = json!({"queues": ["q"], "worker": "w", "lease_ms": 600_000, "wait_ms": 10_000});
    for _ in 0..6 {
        let claimed = fixture.http.post("/claim", &claim).await.expect(200);
        fixture.advance(70_000);
        fixture.http.post("/complete", &report(&claimed["tasks"][0])).await.expect(200);
    }
    fixture.http.post("/claim", &claim).await.expect(200);
    fixture.advance(6000);
    let path = "/stats?queue=q&window_ms=900000&target_wait_ms=3000";
    let stats = fixture
        .until(|| async {
            let stats = fixture.http.get(path).await.expect(200);
            (stats["n"] == 1).then_some(stats)
        })
        .await;

    let figure = |name: &str| stats[name].as_f64().unwrap_or_else(|| panic!("{name}: {stats}"));
    let counts = ["submitted", "claimed", "completed", "scheduled", "ready", "leased", "target_wait_ms"].map(figure);
    assert_eq!(counts, [10.0, 7.0, 6.0, 1.0, 2.0, 1.0, 3000.0]);
    // 10 tasks in 900 s, at concurrency 1 with 70 s each. All other figures follow from these, which depend on the
    // machine a little.
    let (m, c) = (figure("m"), figure("c"));
    assert!(near(&stats["m"], 10.0 / 900.0) && (1.0 / 80.0..=1.0 / 70.0).contains(&c), "{stats}");
    let waiting = erlang::predict_wait(m, 1, c).expect("a stable queue");
    for (name, wanted) in [
        ("s", m / c),
        ("offered_load", m / c),
        ("utilisation", m / c),
        ("time_to_drain_ms", 2000.0 / (c - m)),
        ("predicted_wait_probability", waiting.probability),
        ("predicted_wait_mean_ms", waiting.mean_ms),
        ("predicted_wait_p50_ms", waiting.p50_ms),
        ("predicted_wait_p95_ms", waiting.p95_ms),
        ("predicted_wait_p99_ms", waiting.p99_ms),
    ] {
        assert!((figure(name) / wanted - 1.0).abs() < 1e-9, "{name} is not {wanted}: {stats}");
    }
    assert!(stats["stable"] == true && waiting.p50_ms > 0.0, "{stats}");
    assert_eq!(stats["concurrency_needed"].as_u64(), erlang::concurrency_needed(m, c, 3000));
    assert!(figure("concurrency_needed") > 1.0, "{stats}");
    let all = fixture.http.get("/stats?window_ms=900000").await.expect(200);
    assert!(all["time_to_drain_ms"].is_f64() && all["concurrency_needed"].is_null(), "{all}");
    fixture.http.post_nothing("/queues/q/pause").await.expect(200);
    for path in [path, "/stats?window_ms=900000"] {
        let paused = fixture.http.get(path).await.expect(200);
        assert!(paused["time_to_drain_ms"].is_null(), "a paused queue does not drain: {paused}");
    }
    fixture.end().await;
}

#[tokio::test]
async fn repeated_request_is_not_counted_again() {
    let fixture = Fixture::start().await;
    for (mode, status) in [("keep", 201), ("keep", 200), ("replace", 200), ("debounce", 200)] {
        let body = json!({"queue": "q", "payload": 1, "dedupe": {"key": "k", "mode": mode}});
        fixture.http.post("/tasks", &body).await.expect(status);
    }
    for _ in 0..2 {
        let headers = [("idempotency-key", "i")];
        fixture.http.post_with("/tasks", &headers, br#"{"queue": "q"}"#).await.expect(201);
    }
    let claim = json!({"queues": ["q"], "wait_ms": 10_000});
    let mut first = claim.clone();
    first["claim_id"] = json!("c");
    let claimed = fixture.http.post("/claim", &first).await.expect(200);
    assert_eq!(fixture.http.post("/claim", &first).await.expect(200), claimed);
    let next = report_with(&claimed["tasks"][0], json!({"claim": claim}));
    let other = fixture.http.post("/complete", &next).await.expect(200);
    assert_eq!(fixture.http.post("/complete", &next).await.expect(200), other);
    // A task with a requested cancel ends by its worker's report.
    let other = &other["tasks"][0];
    fixture.http.post_nothing(&format!("/tasks/{}/cancel", text(&other["id"]))).await.expect(200);
    let error = report_with(other, json!({"error": {"type": "t", "message": "m"}}));
    for _ in 0..2 {
        assert_eq!(fixture.http.post("/fail", &error).await.expect(200)["state"], "cancelled");
    }

    let stats = stats(&fixture, "q").await;

    let counted = ["submitted", "claimed", "completed", "failed", "released", "lease_expired"].map(|name| &stats[name]);
    assert_eq!(counted, [2, 2, 1, 1, 0, 0]);
    fixture.end().await;
}

#[tokio::test]
async fn task_with_a_changed_priority_keeps_its_wait_time() {
    let fixture = Fixture::start().await;
    let body = |priority: u8| json!({"queue": "q", "payload": 1, "priority": priority, "dedupe": {"key": "k", "mode": "replace"}});
    fixture.http.post("/tasks", &body(4)).await.expect(201);
    fixture.advance(600_000);
    fixture.http.post("/tasks", &body(9)).await.expect(200);
    let age = fixture.http.get("/queues/q").await.expect(200)["oldest_ready_age_ms"].as_i64().unwrap();
    fixture.claim_one("q").await;
    let stats = stats(&fixture, "q").await;
    assert!(age >= 600_000 && stats["wait_mean_ms"].as_f64().unwrap() >= 600_000.0, "{age}: {stats}");
    fixture.end().await;
}

#[tokio::test]
async fn released_task_restarts_its_wait_and_keeps_its_position() {
    let fixture = Fixture::start().await;
    fixture.submit("q", json!(1)).await;
    let body = json!({"queues": ["q"], "lease_ms": 3_600_000, "wait_ms": 10_000});
    let task = fixture.http.post("/claim", &body).await.expect(200)["tasks"][0].clone();
    fixture.advance(600_000);
    let begun = Instant::now();
    fixture.http.post("/release", &report(&task)).await.expect(200);
    let age = async || fixture.http.get("/queues/q").await.expect(200)["oldest_ready_age_ms"].as_i64().unwrap();
    // The tasks behind it have waited all the time, so its age counts from its first position.
    assert!(age().await >= 600_000);
    let again = fixture.claim_one("q").await;
    let more = begun.elapsed().as_millis() as i64 + 2;
    fixture.advance(40_000);
    fixture.http.post("/release", &report(&again)).await.expect(200);
    assert!(age().await >= 640_000, "also after a second release");
    let stats = stats(&fixture, "q").await;
    let wait = stats["wait_p99_ms"].as_f64().unwrap();
    assert!(stats["claimed"] == 1 && wait <= 1.0625 * more as f64, "{stats}");
    // A retried task gets a new position.
    let again = fixture.claim_one("q").await;
    let error = json!({"error": {"type": "t", "message": "m"}, "retry_in_ms": 0});
    let begun = Instant::now();
    fixture.http.post("/fail", &report_with(&again, error)).await.expect(200);
    let age = age().await;
    assert!(age <= begun.elapsed().as_millis() as i64 + 2, "{age}");
    fixture.end().await;
}

#[tokio::test]
async fn total_has_the_age_of_the_oldest_task_of_any_queue() {
    let fixture = Fixture::start().await;
    fixture.submit("a", json!(1)).await;
    fixture.advance(7000);
    fixture.submit("b", json!(1)).await;
    let all = fixture.http.get("/stats").await.expect(200);
    let a = fixture.http.get("/stats?queue=a").await.expect(200);
    assert!(all["oldest_ready_age_ms"].as_i64().unwrap() >= 7000, "{all}");
    assert!(a["oldest_ready_age_ms"].as_i64() >= all["oldest_ready_age_ms"].as_i64(), "{a} {all}");
    fixture.end().await;
}

#[tokio::test]
async fn unknown_figures_are_null_and_a_queue_without_workers_is_unstable() {
    let fixture = Fixture::start().await;
    let all = fixture.http.get("/stats").await.expect(200);
    assert_eq!((&all["m"], &all["n"], &all["c"], &all["s"]), (&json!(0.0), &json!(0), &Value::Null, &Value::Null));
    assert_eq!((&all["wait_mean_ms"], &all["wait_p99_ms"]), (&Value::Null, &Value::Null));
    fixture.submit("q", json!(1)).await;

    let stats = stats(&fixture, "q").await;

    assert_eq!((&stats["n"], &stats["c"], &stats["s"]), (&json!(0), &Value::Null, &Value::Null), "{stats}");
    assert_eq!((&stats["stable"], &stats["ready"]), (&json!(false), &json!(1)));
    assert!(stats["m"].as_f64().unwrap() > 0.0 && stats["time_to_drain_ms"].is_null());
    assert!(stats["oldest_ready_age_ms"].as_i64().unwrap() >= 5000);
    fixture.end().await;
}

#[tokio::test]
async fn invalid_parameters_are_rejected() {
    let fixture = Fixture::start().await;
    for (path, status, code) in [
        ("?window_ms=5000", 422, "out_of_range"),
        ("?window_ms=905000", 422, "out_of_range"),
        ("?window_ms=12000", 422, "invalid_value"),
        ("?window_ms=a", 422, "wrong_type"),
        ("?queue=a%20b", 422, "invalid_queue"),
        ("?target_wait_ms=0", 422, "out_of_range"),
        ("?target_wait_ms=86400001", 422, "out_of_range"),
        ("?what=1", 400, "invalid_query"),
    ] {
        let (found, pointer) = fixture.http.get(&format!("/stats{path}")).await.problem(status);
        assert_eq!(found, code, "{path}");
        assert_eq!(pointer.as_deref(), path.split('=').next(), "{path}");
    }
    let (code, _) = fixture.http.get("/stats?queue=nobody").await.problem(404);
    assert_eq!(code, "queue_not_found");
    fixture.end().await;
}

#[tokio::test]
async fn stats_with_redis_unavailable_return_503() {
    let mut fixture = Fixture::start().await;
    fixture.http.get("/stats").await.expect(200);
    fixture.redis.kill();
    for path in ["/stats", "/workers"] {
        fixture.http.get(path).await.problem(503);
    }
    fixture.redis.restart().await;
    fixture.until(|| async { (fixture.http.get("/stats").await.status == 200).then_some(()) }).await;
    fixture.end().await;
}
