//! Metrics of the data set: they agree on all servers, stay bounded, and are left out while Redis is unavailable.

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

use futures_util::future::join_all;
use reqwest::Method;
use serde_json::{Value, json};
use slotwheel::store::views::queue_stats;

use super::{metrics, metrics_of, transitions, use_it};
use crate::support::exposition::Exposition;
use crate::support::redis::Flavour;
use crate::support::{Answer, Fixture};

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

    // No server runs upkeep.
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
    // After 250 other queues of the same priority, and before all the rest.
    for _ in 0..20 {
        fixture.submit("q00200-full", json!(1)).await;
    }
    // Of the lowest priority, with a name in the middle.
    for _ in 0..20 {
        fixture.submit_with(json!({"queue": "q00500-low", "payload": 1, "priority": 0})).await;
    }
    // A task that waits behind many of a better priority in other slots.
    let body = json!({"queue": "q00500-starved", "payload": 1, "priority": 0, "key": "starved"});
    let starved = fixture.submit_with(body).await;
    fixture.advance(3_600_000);
    let better = |key: usize| json!({"queue": "q00500-starved", "payload": 1, "priority": 9, "key": format!("{key}")});
    let better: Vec<Value> = (0..60).map(better).collect();
    fixture.http.post("/tasks/batch", &json!({"tasks": better})).await.expect(200);
    // Many concurrent readings must not make Redis seem unavailable. They skip the contract check: the server runs in
    // this thread too.
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
    assert!(age >= 3600.0, "{age}: {} is not counted", starved["id"]);

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
    // Three new routes.
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
    assert!(began.elapsed() < Duration::from_secs(8), "{:?}", began.elapsed());
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
    assert!(began.elapsed() < Duration::from_secs(8), "{:?}", began.elapsed());
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
