//! Delayed tasks run at their time and not before.

use serde_json::json;

use crate::support::{Fixture, text};

#[tokio::test]
async fn delayed_task_is_not_claimable_before_its_time() {
    let fixture = Fixture::start().await;
    let id = fixture.submit_with(json!({"queue": "q", "delay_ms": 10_000})).await["id"].clone();
    fixture.advance(9_000);
    assert!(fixture.claim_now("q", 1).await.is_empty());
    fixture.advance(1_000);
    assert_eq!(fixture.claim_one("q").await["id"], id);
    fixture.end().await;
}

#[tokio::test]
async fn run_at_in_the_past_makes_the_task_ready_now() {
    let fixture = Fixture::start().await;
    let now = jiff::Timestamp::now();
    let soon = (now + jiff::SignedDuration::from_secs(3600)).to_string();
    let past = "1990-01-01T00:00:00Z";
    let later = fixture.submit_with(json!({"queue": "q", "run_at": soon})).await;
    let at_once = fixture.submit_with(json!({"queue": "q", "run_at": past})).await;
    assert_eq!((&later["state"], &at_once["state"]), (&json!("scheduled"), &json!("ready")));
    assert!(text(&later["run_at"]).ends_with('Z'));
    assert_eq!(fixture.claim_one("q").await["id"], at_once["id"]);
    fixture.advance(3_600_000);
    assert_eq!(fixture.claim_one("q").await["id"], later["id"]);
    fixture.end().await;
}

#[tokio::test]
async fn delayed_tasks_become_ready_in_the_order_of_their_times() {
    let fixture = Fixture::with_shards(1).await;
    for n in [5, 3, 9, 1, 7] {
        fixture.submit_with(json!({"queue": "q", "delay_ms": n * 1000, "payload": n})).await;
    }
    fixture.advance(20_000);
    let mut got = Vec::new();
    for _ in 0..5 {
        got.push(fixture.claim_one("q").await["payload"].as_i64().unwrap());
    }
    assert_eq!(got, [1, 3, 5, 7, 9]);
    fixture.end().await;
}

#[tokio::test]
async fn delayed_tasks_beyond_one_call_all_become_ready() {
    let fixture = Fixture::start().await;
    for _ in 0..2 {
        let tasks: Vec<_> = (0..700).map(|_| json!({"queue": "q", "delay_ms": 60_000})).collect();
        fixture.http.post("/tasks/batch", &json!({"tasks": tasks})).await.expect(200);
    }
    fixture.advance(60_000);
    fixture.until(|| async { (fixture.counts("q").await["ready"] == 1400).then_some(()) }).await;
    fixture.end().await;
}
