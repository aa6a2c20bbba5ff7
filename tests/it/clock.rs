//! The clock of a shard: leases are prolonged by outages, and keep their length, as delays do, if Redis' clock is set.

mod steps;

use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::metrics::{metrics, metrics_of};
use crate::support::{Fixture, Http, report, text};

/// Longer than the time without a touch that is an outage, and than the leases of these tests.
const OUTAGE: Duration = Duration::from_millis(2600);
const LEASE_MS: i64 = 1000;

fn ms(time: &Value) -> i64 {
    text(time).parse::<jiff::Timestamp>().expect("a time").as_millisecond()
}

/// Waits until `duration` has passed.
async fn pass(fixture: &Fixture, duration: Duration) {
    let began = Instant::now();
    fixture.until(|| async { (began.elapsed() >= duration).then_some(()) }).await;
}

/// Claims a new task with the shortest lease.
async fn leased(fixture: &Fixture, more: Value) -> Value {
    let mut body = json!({"queue": "q"});
    body.as_object_mut().expect("an object").extend(more.as_object().expect("an object").clone());
    fixture.submit_with(body).await;
    let claim = json!({"queues": ["q"], "lease_ms": LEASE_MS, "worker": "w"});
    fixture.http.post("/claim", &claim).await.expect(200)["tasks"][0].clone()
}

/// Sends heartbeats until `done`, and then completes the task, like a worker that works through an outage.
async fn work_until(http: &Http, task: &Value, done: impl Future<Output = ()>) -> Value {
    let beats = async {
        let beat = json!({"worker": "w", "tasks": [report(task)]});
        loop {
            http.post("/heartbeat", &beat).await;
        }
    };
    tokio::select! {
        () = beats => {}
        () = done => {}
    }
    http.post("/complete", &report(task)).await.expect(200)
}

/// The task is completed, and no attempt was counted.
async fn assert_completed_at_once(fixture: &Fixture, task: &Value) {
    let task = fixture.task(&task["id"]).await;
    assert_eq!((&task["state"], &task["attempts"]), (&json!("completed"), &json!(0)));
}

#[tokio::test]
async fn worker_with_heartbeats_keeps_its_lease_while_redis_is_frozen() {
    let fixture = Fixture::start().await;
    let task = leased(&fixture, json!({"max_attempts": 1})).await;
    let frozen = async {
        fixture.redis.freeze();
        pass(&fixture, OUTAGE).await;
        fixture.redis.thaw();
    };

    work_until(&fixture.http, &task, frozen).await;

    assert_completed_at_once(&fixture, &task).await;
    fixture.end().await;
}

#[tokio::test]
async fn worker_keeps_its_lease_while_redis_is_down() {
    let mut fixture = Fixture::start().await;
    let task = leased(&fixture, json!({"max_attempts": 1})).await;
    fixture.redis.kill();
    pass(&fixture, OUTAGE).await;
    fixture.redis.restart().await;

    fixture
        .until(|| async { (fixture.http.post("/complete", &report(&task)).await.status == 200).then_some(()) })
        .await;

    assert_completed_at_once(&fixture, &task).await;
    fixture.end().await;
}

#[tokio::test]
async fn worker_keeps_its_lease_while_no_server_runs() {
    let mut fixture = Fixture::start().await;
    let task = leased(&fixture, json!({"max_attempts": 1})).await;
    fixture.stop_servers().await;
    pass(&fixture, OUTAGE).await;
    fixture.http = fixture.another_server().await;

    fixture.http.post("/complete", &report(&task)).await.expect(200);

    assert_completed_at_once(&fixture, &task).await;
    fixture.end().await;
}

#[tokio::test]
async fn lease_is_prolonged_by_the_length_of_the_outage_alone() {
    let mut fixture = Fixture::start().await;
    let other = fixture.another_server().await;
    let task = leased(&fixture, json!({"max_attempts": 1, "max_run_ms": LEASE_MS})).await;
    fixture.redis.freeze();
    pass(&fixture, OUTAGE).await;
    fixture.redis.thaw();

    // Upkeep prolongs the lease when it would have expired.
    let prolonged = fixture
        .until(|| async {
            let shown = fixture.task(&task["id"]).await["lease_until"].clone();
            (shown != task["lease_until"]).then_some(shown)
        })
        .await;
    let gained = ms(&prolonged) - ms(&task["lease_until"]);
    assert!((2000..6000).contains(&gained), "{gained}");
    // max_run_ms is prolonged too; a heartbeat extends no further.
    let beat = json!({"worker": "w", "tasks": [{"id": task["id"], "lease": task["lease"], "lease_ms": 60_000}]});
    let answer = other.post("/heartbeat", &beat).await.expect(200);
    assert_eq!(answer["tasks"][0]["lease_until"], prolonged);
    // Two servers count an outage once.
    let mut outages = 0;
    for http in [&fixture.http, &other] {
        let page = metrics_of(http).await;
        outages += page.value("slotwheel_outages_total", &[]).expect("a counter") as u16;
    }
    assert_eq!(outages, fixture.config.shards.expect("a number").count());

    fixture.advance(LEASE_MS);
    assert_eq!(fixture.http.post("/complete", &report(&task)).await.problem(409).0, "lease_lost");
    assert_eq!(fixture.until_state(&task["id"], "dead").await["attempts"], 1);
    let next = leased(&fixture, json!({"max_attempts": 1})).await;
    fixture.advance(LEASE_MS);
    assert_eq!(
        fixture.http.post("/complete", &report(&next)).await.problem(409).0,
        "lease_lost",
        "set after the outage"
    );
    fixture.end().await;
}

#[tokio::test]
async fn repeated_claim_gets_the_tasks_whose_leases_an_outage_prolongs() {
    // Upkeep meets no lease before the claim does.
    let mut fixture = Fixture::with(|written| written.poll_interval_ms = Some(60_000)).await;
    fixture.submit_with(json!({"queue": "q"})).await;
    let claim = json!({"queues": ["q"], "lease_ms": LEASE_MS, "claim_id": "c"});
    let task = fixture.http.post("/claim", &claim).await.expect(200)["tasks"][0].clone();
    fixture.stop_servers().await;
    pass(&fixture, OUTAGE).await;
    fixture.http = fixture.another_server().await;

    let again = fixture.http.post("/claim", &claim).await.expect(200)["tasks"][0].clone();

    assert_eq!(again["lease"], task["lease"]);
    assert!(ms(&again["lease_until"]) - ms(&task["lease_until"]) > 2000);
    let page = metrics(&fixture).await;
    assert_eq!(page.count("slotwheel_clock_steps_total", &[]), 0.0);
    fixture.end().await;
}
