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
    let body = json!({"queue": "q", "expires_in_ms": 5000, "delay_ms": 4000});
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
    let body = report_with(&claimed, json!({"error": {"type": "e", "message": "m"}, "retry_in_ms": 9000}));
    assert_eq!(fixture.http.post("/fail", &body).await.expect(200)["state"], "scheduled");
    fixture.advance(6000);
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

/// A server whose upkeep does not run during a test: requests find tasks that have expired, and are not ended yet.
async fn without_upkeep() -> Fixture {
    Fixture::with(|written| {
        written.shards = Some(1);
        written.poll_interval_ms = Some(60_000);
    })
    .await
}

/// A ready and a scheduled task past their time of expiry.
async fn past_expiry(fixture: &Fixture) -> [Value; 2] {
    let body = |delay_ms: i64| json!({"queue": "q", "expires_in_ms": 1_000_000, "delay_ms": delay_ms});
    let ready = fixture.submit_with(body(0)).await["id"].clone();
    let scheduled = fixture.submit_with(body(900_000)).await["id"].clone();
    fixture.advance(1_000_001);
    [ready, scheduled]
}

#[tokio::test]
async fn ticks_with_a_deadline_and_a_dedupe_key_each_run() {
    let fixture = Fixture::start().await;
    for tick in 0..8 {
        let body = json!({"queue": "q", "payload": tick, "expires_in_ms": 600, "dedupe": {"key": "tick"}});
        fixture.submit_with(body).await;
        if tick % 2 == 1 {
            let claimed = fixture.claim_one("q").await;
            assert_eq!(claimed["payload"], tick);
            fixture.http.post("/complete", &report(&claimed)).await.expect(200);
        }
        fixture.advance(1000);
    }
    fixture.end().await;
}

#[tokio::test]
async fn dedupe_key_of_a_task_past_its_expiry_is_free_in_every_mode() {
    let fixture = without_upkeep().await;
    for mode in ["keep", "replace", "debounce"] {
        for delay_ms in [0, 900_000] {
            let body = |payload: i64, delay_ms: i64| {
                json!({"queue": "q", "payload": payload, "expires_in_ms": 1_000_000, "delay_ms": delay_ms,
                    "dedupe": {"key": "d", "mode": mode}})
            };
            let first = fixture.submit_with(body(1, delay_ms)).await;
            fixture.advance(1_000_001);
            let second = fixture.submit_with(body(2, 0)).await;
            assert_ne!(first["id"], second["id"]);
            let ended = fixture.task(&first["id"]).await;
            assert_eq!((&ended["state"], &ended["finished_at"]), (&json!("expired"), &first["expires_at"]));
            let claimed = fixture.claim_one("q").await;
            assert_eq!(claimed["payload"], 2);
            fixture.http.post("/complete", &report(&claimed)).await.expect(200);
        }
    }
    assert_eq!(fixture.counts("q").await["expired"], 6);
    fixture.end().await;
}

#[tokio::test]
async fn task_past_its_expiry_is_shown_as_expired_and_its_wait_ends() {
    let fixture = without_upkeep().await;
    for id in past_expiry(&fixture).await {
        let task = fixture.http.get(&format!("/tasks/{}?wait_ms=60000", text(&id))).await.expect(200);
        assert_eq!((&task["state"], &task["finished_at"]), (&json!("expired"), &task["expires_at"]));
    }
    for state in ["ready", "scheduled"] {
        let list = fixture.http.get(&format!("/tasks?queue=q&state={state}")).await.expect(200);
        assert_eq!(list["tasks"], json!([]));
    }
    fixture.end().await;
}

#[tokio::test]
async fn task_past_its_expiry_is_not_the_oldest_ready() {
    let fixture = without_upkeep().await;
    past_expiry(&fixture).await;
    let queue = fixture.http.get("/queues/q").await.expect(200);
    assert_eq!((&queue["counts"]["ready"], &queue["oldest_ready_age_ms"]), (&json!(1), &Value::Null));
    fixture.submit("q", json!("alive")).await;
    fixture.advance(5000);
    let age = fixture.http.get("/queues/q").await.expect(200)["oldest_ready_age_ms"].as_i64().unwrap();
    assert!((5000..500_000).contains(&age), "the age of the task behind is {age} ms");
    fixture.end().await;
}

#[tokio::test]
async fn cancel_of_a_task_past_its_expiry_finds_it_expired() {
    let fixture = without_upkeep().await;
    for id in past_expiry(&fixture).await {
        for _ in 0..2 {
            let answer = fixture.http.post_nothing(&format!("/tasks/{}/cancel", text(&id))).await;
            assert_eq!(
                (answer.json()["state"].clone(), answer.problem(409).0),
                (json!("expired"), "already_ended".into())
            );
        }
    }
    assert_eq!(fixture.counts("q").await["expired"], 2);
    fixture.end().await;
}

#[tokio::test]
async fn task_past_its_expiry_can_be_retried_and_deleted() {
    let fixture = without_upkeep().await;
    for id in past_expiry(&fixture).await {
        let task = fixture.http.post_nothing(&format!("/tasks/{}/retry", text(&id))).await.expect(200);
        assert_eq!((&task["state"], &task["run_at"]), (&json!("ready"), &Value::Null));
        assert_eq!(fixture.claim_one("q").await["id"], id);
    }
    for id in past_expiry(&fixture).await {
        fixture.http.delete(&format!("/tasks/{}", text(&id))).await.expect(204);
    }
    assert_eq!(fixture.counts("q").await["deleted"], 2);
    fixture.end().await;
}

#[tokio::test]
async fn retry_takes_the_dedupe_key_of_a_task_past_its_expiry() {
    let fixture = without_upkeep().await;
    let body = json!({"queue": "q", "expires_in_ms": 1_000_000, "dedupe": {"key": "d"}});
    let first = fixture.submit_with(body.clone()).await["id"].clone();
    fixture.http.post_nothing(&format!("/tasks/{}/cancel", text(&first))).await.expect(200);
    let second = fixture.submit_with(body).await["id"].clone();
    fixture.advance(1_000_001);
    fixture.http.post_nothing(&format!("/tasks/{}/retry", text(&first))).await.expect(200);
    assert_eq!(fixture.task(&second).await["state"], "expired");
    fixture.end().await;
}

#[tokio::test]
async fn report_after_the_deadline_ends_the_task_as_expired() {
    let fixture = Fixture::start().await;
    for path in ["/release", "/fail"] {
        let id = fixture.submit_with(json!({"queue": "q", "expires_in_ms": 5000})).await["id"].clone();
        let claimed = fixture.claim_one("q").await;
        fixture.advance(6000);
        let more = if path == "/fail" { json!({"error": {"message": "m"}}) } else { json!({}) };
        let body = report_with(&claimed, more);
        for _ in 0..2 {
            let answer = fixture.http.post(path, &body).await.expect(200);
            assert_eq!((&answer["state"], &answer["run_at"]), (&json!("expired"), &Value::Null));
        }
        assert_eq!(fixture.task(&id).await["state"], "expired");
    }
    fixture.end().await;
}

#[tokio::test]
async fn lease_that_expires_after_the_deadline_ends_the_task_as_expired() {
    let fixture = Fixture::start().await;
    let backoff = json!({"kind": "fixed", "base_ms": 3_600_000, "jitter": "none"});
    let id = fixture.submit_with(json!({"queue": "q", "expires_in_ms": 5000, "backoff": backoff})).await["id"].clone();
    fixture.claim_one("q").await;
    fixture.advance(100_000);
    let task = fixture.until_state(&id, "expired").await;
    assert_eq!((&task["attempts"], &task["errors"][0]["type"]), (&json!(1), &json!("lease_expired")));
    assert_eq!(task["run_at"], Value::Null, "no retry was scheduled");
    fixture.end().await;
}

#[tokio::test]
async fn lease_that_has_run_out_is_not_shown_as_held() {
    let fixture = without_upkeep().await;
    fixture.submit("q", json!(1)).await;
    let claim = json!({"queues": ["q"], "worker": "w", "lease_ms": 5000});
    fixture.http.post("/claim", &claim).await.expect(200);
    let held = || async { fixture.http.get("/workers").await.expect(200)["workers"][0]["held"].as_i64() };
    fixture.until(|| async { (held().await == Some(1)).then_some(()) }).await;
    // The worker is still live.
    fixture.advance(6000);
    assert_eq!(held().await, Some(0));
    fixture.end().await;
}

#[tokio::test]
async fn expired_tasks_at_the_front_block_no_other_task() {
    let fixture = without_upkeep().await;
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
    let entries = expire_tasks(shard, &mut Caller::new(), 500).await.unwrap();
    assert_eq!((entries, store.client().metrics().transitions.read().iter().map(|(_, _, count)| count).sum()), (1, 0));
    fixture.end().await;
}
