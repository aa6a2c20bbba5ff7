//! Several releases on one Redis: fields written by a later release survive transitions of this one.

use deadpool_redis::redis::cmd;
use serde_json::{Value, json};
use slotwheel::domain::id::TaskId;
use slotwheel::store::record::fields;

use crate::support::{Fixture, report, report_with, text};

/// Writes a field unknown to this release.
async fn mark(fixture: &Fixture, id: &Value) -> Vec<u8> {
    let id = TaskId::parse(text(id)).unwrap();
    let key = fixture.store().await.shard_for_task(&id).keys.task(&id);
    fixture.redis.ask::<()>(cmd("HSET").arg(&key).arg("later").arg("kept")).await;
    key
}

async fn assert_kept(fixture: &Fixture, key: &[u8], after: &str) {
    let kept: Option<String> = fixture.redis.ask(cmd("HGET").arg(key).arg("later")).await;
    assert_eq!(kept.as_deref(), Some("kept"), "after {after}");
}

#[tokio::test]
async fn field_of_a_later_release_survives_every_transition() {
    let fixture = Fixture::start().await;
    let body = json!({"queue": "q", "delay_ms": 60_000, "retain_ms": 600_000,
        "backoff": {"kind": "fixed", "base_ms": 1000, "jitter": "none"},
        "dedupe": {"key": "k", "mode": "replace"}});
    let task = fixture.submit_with(body.clone()).await;
    let id = &task["id"];
    let key = mark(&fixture, id).await;
    let path = |verb: &str| format!("/tasks/{}/{verb}", text(id));

    fixture.http.post("/tasks", &body).await.expect(200);
    assert_kept(&fixture, &key, "replace").await;
    fixture.advance(61_000);
    let claimed = fixture.claim_one("q").await;
    assert_kept(&fixture, &key, "promote and claim").await;
    let beat = json!({"worker": "w", "tasks": [report_with(&claimed, json!({"progress": 1}))]});
    fixture.http.post("/heartbeat", &beat).await.expect(200);
    assert_kept(&fixture, &key, "heartbeat").await;
    fixture.http.post("/release", &report(&claimed)).await.expect(200);
    assert_kept(&fixture, &key, "release").await;
    let claimed = fixture.claim_one("q").await;
    let error = json!({"error": {"type": "e", "message": "m"}});
    fixture.http.post("/fail", &report_with(&claimed, error)).await.expect(200);
    assert_kept(&fixture, &key, "fail").await;
    fixture.advance(2_000);
    fixture.claim_one("q").await;
    fixture.advance(120_000);
    fixture.until_lease_ends(id).await;
    assert_kept(&fixture, &key, "reap").await;
    fixture.http.post_nothing(&path("cancel")).await.expect(200);
    assert_kept(&fixture, &key, "cancel").await;
    fixture.http.post_nothing(&path("retry")).await.expect(200);
    assert_kept(&fixture, &key, "retry").await;
    let claimed = fixture.claim_one("q").await;
    fixture.http.post("/complete", &report(&claimed)).await.expect(200);
    assert_kept(&fixture, &key, "complete").await;
    fixture.end().await;
}

#[tokio::test]
async fn setting_of_a_later_release_survives_a_change_of_another() {
    let fixture = Fixture::start().await;
    fixture.http.post_nothing("/queues/q/pause").await.expect(200);
    let store = fixture.store().await;
    let queue = slotwheel::domain::queue::QueueName::parse("q").unwrap();
    let keys = [store.first_shard().keys.settings(&queue), store.first_shard().keys.settings_copy(&queue)];
    for key in &keys {
        fixture.redis.ask::<()>(cmd("HSET").arg(key).arg("later").arg("kept")).await;
    }
    fixture.http.post_nothing("/queues/q/resume").await.expect(200);
    for key in &keys {
        assert_kept(&fixture, key, "resume").await;
    }
    fixture.end().await;
}

#[tokio::test]
async fn unreadable_task_of_a_later_release_affects_no_other() {
    let fixture = Fixture::start().await;
    let ended = fixture.submit("q", json!(1)).await;
    let claimed = fixture.claim_one("q").await;
    fixture.http.post("/complete", &report(&claimed)).await.expect(200);
    let id = TaskId::parse(text(&ended["id"])).unwrap();
    let key = fixture.store().await.shard_for_task(&id).keys.task(&id);
    let had: Vec<u8> = fixture.redis.ask(cmd("HGET").arg(&key).arg(fields::DOCUMENT)).await;
    // A format of payloads that comes later.
    fixture.redis.ask::<()>(cmd("HSET").arg(&key).arg(fields::DOCUMENT).arg("9unknown")).await;
    assert_eq!(fixture.http.get(&format!("/tasks/{}", text(&ended["id"]))).await.problem(500).0, "internal");
    fixture.submit("q", json!(2)).await;
    assert_eq!(fixture.claim_one("q").await["payload"], json!(2));
    fixture.redis.ask::<()>(cmd("HSET").arg(&key).arg(fields::DOCUMENT).arg(had)).await;
    fixture.end().await;
}
