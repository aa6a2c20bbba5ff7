//! Ended tasks are kept for their retention, and no longer.

use deadpool_redis::redis::cmd;
use serde_json::{Value, json};
use slotwheel::domain::queue::QueueName;
use slotwheel::domain::state::State;

use crate::support::{Fixture, report, report_with, text};

async fn gone(fixture: &Fixture, id: &Value) {
    let path = format!("/tasks/{}", text(id));
    fixture.until(|| async { (fixture.http.get(&path).await.status == 404).then_some(()) }).await;
}

#[tokio::test]
async fn completed_and_dead_tasks_have_their_own_retention() {
    let fixture = Fixture::start().await;
    fixture.submit("q", json!(1)).await;
    let completed = fixture.claim_one("q").await;
    fixture.http.post("/complete", &report(&completed)).await.expect(200);
    fixture.submit("q", json!(2)).await;
    let dead = fixture.claim_one("q").await;
    let body = report_with(&dead, json!({"error": {"type": "e", "message": "m"}, "retry": false}));
    fixture.http.post("/fail", &body).await.expect(200);
    let cancelled = fixture.submit("q", json!(3)).await;
    fixture.http.post_nothing(&format!("/tasks/{}/cancel", text(&cancelled["id"]))).await.expect(200);

    fixture.advance(3_600_000 - 60_000);
    fixture.task(&completed["id"]).await;
    fixture.advance(60_001);
    gone(&fixture, &completed["id"]).await;
    fixture.task(&cancelled["id"]).await;
    fixture.advance(24 * 3_600_000);
    gone(&fixture, &cancelled["id"]).await;
    fixture.task(&dead["id"]).await;
    fixture.advance(14 * 24 * 3_600_000);
    gone(&fixture, &dead["id"]).await;
    assert_eq!(fixture.counts("q").await["deleted"], 3);
    fixture.end().await;
}

#[tokio::test]
async fn task_with_its_own_retention_is_kept_for_it() {
    let fixture = Fixture::start().await;
    fixture.submit_with(json!({"queue": "q", "retain_ms": 10_000})).await;
    let claimed = fixture.claim_one("q").await;
    fixture.http.post("/complete", &report(&claimed)).await.expect(200);
    fixture.advance(10_001);
    gone(&fixture, &claimed["id"]).await;
    fixture.end().await;
}

/// Completes a task that was submitted with this body. Returns its id.
async fn completed(fixture: &Fixture, body: Value) -> Value {
    fixture.submit_with(body).await;
    let claimed = fixture.claim_one("q").await;
    fixture.http.post("/complete", &report(&claimed)).await.expect(200);
    claimed["id"].clone()
}

#[tokio::test]
async fn tasks_with_their_own_retention_are_passed_over_by_the_default_one() {
    let fixture = Fixture::with_shards(1).await;
    let mut kept = Vec::new();
    for _ in 0..3 {
        kept.push(completed(&fixture, json!({"queue": "q", "retain_ms": 3 * 3_600_000})).await);
    }
    let first = completed(&fixture, json!({"queue": "q"})).await;
    fixture.advance(1_800_000);
    let second = completed(&fixture, json!({"queue": "q"})).await;

    fixture.advance(1_800_001);
    gone(&fixture, &first).await;
    fixture.task(&second).await;
    fixture.advance(1_800_000);
    gone(&fixture, &second).await;
    for id in &kept {
        fixture.task(id).await;
    }
    // The queue and state come into the index again.
    let third = completed(&fixture, json!({"queue": "q"})).await;
    fixture.advance(3_600_001);
    gone(&fixture, &third).await;
    fixture.advance(3_600_000);
    for id in &kept {
        gone(&fixture, id).await;
    }
    fixture.end().await;
}

#[tokio::test]
async fn expired_task_is_kept_from_the_time_at_which_it_was_found() {
    let fixture = Fixture::with_shards(1).await;
    let task = fixture.submit_with(json!({"queue": "q", "expires_in_ms": 3_600_000})).await;
    let other = fixture.submit_with(json!({"queue": "q", "expires_in_ms": 7_200_000})).await;
    // It is found an hour after its time of expiry.
    fixture.advance(7_200_001);
    fixture.until(|| async { (fixture.counts("q").await["expired"] == 2).then_some(()) }).await;
    fixture.advance(24 * 3_600_000 - 3_600_000);
    fixture.until_state(&task["id"], "expired").await;
    fixture.advance(3_600_000);
    gone(&fixture, &task["id"]).await;
    gone(&fixture, &other["id"]).await;
    fixture.end().await;
}

#[tokio::test]
async fn retried_task_is_not_deleted_by_the_retention_of_its_end() {
    let fixture = Fixture::with_shards(1).await;
    let id = fixture.submit("q", json!(1)).await["id"].clone();
    fixture.http.post_nothing(&format!("/tasks/{}/cancel", text(&id))).await.expect(200);
    fixture.http.post_nothing(&format!("/tasks/{}/retry", text(&id))).await.expect(200);
    let other = fixture.submit("q", json!(2)).await["id"].clone();
    fixture.http.post_nothing(&format!("/tasks/{}/cancel", text(&other))).await.expect(200);
    fixture.advance(24 * 3_600_000 + 1);
    gone(&fixture, &other).await;
    assert_eq!(fixture.task(&id).await["state"], "ready");
    fixture.end().await;
}

#[tokio::test]
async fn unreadable_index_of_a_queue_keeps_no_task_of_another() {
    let fixture = Fixture::with_shards(1).await;
    let first = completed(&fixture, json!({"queue": "q"})).await;
    fixture.submit("other", json!(1)).await;
    let claimed = fixture.claim_one("other").await;
    fixture.http.post("/complete", &report(&claimed)).await.expect(200);
    let store = fixture.store().await;
    let keys = &store.first_shard().keys;
    let index = keys.ended(&QueueName::parse("q").unwrap(), State::Completed);
    let aside = [keys.retention(), b"_aside".to_vec()].concat();
    fixture.redis.ask::<()>(cmd("RENAME").arg(&index).arg(&aside)).await;
    fixture.redis.ask::<()>(cmd("SET").arg(&index).arg("x")).await;

    fixture.advance(3_600_001);
    gone(&fixture, &claimed["id"]).await;
    fixture.task(&first).await;
    fixture.redis.ask::<()>(cmd("RENAME").arg(&aside).arg(&index)).await;
    fixture.advance(60_001);
    gone(&fixture, &first).await;
    fixture.end().await;
}
