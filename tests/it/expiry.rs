//! A task that waits too long expires; one that runs does not.

use deadpool_redis::redis::cmd;
use serde_json::{Value, json};
use slotwheel::domain::id::TaskId;
use slotwheel::store::Caller;
use slotwheel::store::ops::expire_tasks::expire_tasks;

use crate::support::{Fixture, report, report_with, text};

#[tokio::test]
async fn waiting_task_expires() {
    let fixture = Fixture::start().await;
    let ready = fixture.submit_with(json!({"queue": "q", "expires_in_ms": 5000})).await["id"].clone();
    let body = json!({"queue": "q", "expires_in_ms": 5000, "delay_ms": 60_000});
    let scheduled = fixture.submit_with(body).await["id"].clone();
    fixture.advance(5000);
    fixture.until_state(&ready, "expired").await;
    fixture.until_state(&scheduled, "expired").await;
    assert!(fixture.claim_now("q", 10).await.is_empty());
    fixture.end().await;
}

#[tokio::test]
async fn leased_task_does_not_expire_but_its_retry_does() {
    let fixture = Fixture::start().await;
    let id = fixture.submit_with(json!({"queue": "q", "expires_in_ms": 5000})).await["id"].clone();
    let claimed = fixture.claim_one("q").await;
    fixture.advance(6000);
    let body = report_with(&claimed, json!({"error": {"type": "e", "message": "m"}, "retry_in_ms": 1000}));
    assert_eq!(fixture.http.post("/fail", &body).await.expect(200)["state"], "scheduled");
    fixture.until_state(&id, "expired").await;
    fixture.end().await;
}

#[tokio::test]
async fn leased_task_completes_after_its_deadline() {
    let fixture = Fixture::start().await;
    fixture.submit_with(json!({"queue": "q", "expires_in_ms": 5000})).await;
    let claimed = fixture.claim_one("q").await;
    fixture.advance(6000);
    fixture.http.post("/complete", &report(&claimed)).await.expect(200);
    fixture.end().await;
}

#[tokio::test]
async fn expired_tasks_at_the_front_block_no_other_task() {
    let fixture = Fixture::with(|written| {
        written.shards = Some(1);
        // Without upkeep: the claim itself must expire the task.
        written.poll_interval_ms = Some(60_000);
    })
    .await;
    let tasks: Vec<Value> = (0..600).map(|_| json!({"queue": "q", "expires_in_ms": 1_000_000})).collect();
    fixture.http.post("/tasks/batch", &json!({"tasks": tasks})).await.expect(200);
    let id = fixture.submit("q", json!("alive")).await["id"].clone();
    fixture.advance(1_000_001);
    assert_eq!(fixture.claim_one("q").await["id"], id);
    fixture.end().await;
}

#[tokio::test]
async fn expired_task_can_be_retried_with_a_new_deadline() {
    let fixture = Fixture::start().await;
    let id = fixture.submit_with(json!({"queue": "q", "expires_in_ms": 5000})).await["id"].clone();
    fixture.advance(5000);
    fixture.until_state(&id, "expired").await;
    let task = fixture.http.post_nothing(&format!("/tasks/{}/retry", text(&id))).await.expect(200);
    assert_eq!(task["state"], "ready");
    assert_eq!(fixture.claim_one("q").await["id"], id);
    fixture.end().await;
}

#[tokio::test]
async fn task_that_is_not_waiting_is_not_counted_as_expired() {
    let mut fixture = Fixture::start().await;
    fixture.submit("q", json!(1)).await;
    let id = TaskId::parse(text(&fixture.claim_one("q").await["id"])).unwrap();
    fixture.stop_servers().await;
    // The index is corrupt: it contains a leased task.
    let store = fixture.store().await;
    let shard = store.shard_for_task(&id);
    let deadline = format!("{}expirations", shard.keys.base());
    fixture.redis.ask::<()>(cmd("ZADD").arg(&deadline).arg(1).arg(id.as_bytes())).await;
    let more = expire_tasks(shard, &mut Caller::new()).await.unwrap();
    assert_eq!((more, store.client().metrics().transitions.read().iter().map(|(_, _, count)| count).sum()), (false, 0));
    fixture.redis.ask::<()>(cmd("ZREM").arg(&deadline).arg(id.as_bytes())).await;
    fixture.end().await;
}
