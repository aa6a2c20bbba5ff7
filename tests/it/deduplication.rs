//! Deduplication: a dedupe key is held by one task that has not ended.

use serde_json::{Value, json};

use crate::support::{Answer, Fixture, report, report_with, text};

fn body(mode: &str, payload: i64, more: Value) -> Value {
    let mut body = json!({"queue": "q", "payload": payload, "dedupe": {"key": "d", "mode": mode}});
    body.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
    body
}

async fn submit(fixture: &Fixture, body: &Value) -> Answer {
    fixture.http.post("/tasks", body).await
}

#[tokio::test]
async fn keep_returns_the_task_that_holds_the_key() {
    let fixture = Fixture::start().await;
    let first = submit(&fixture, &body("keep", 1, json!({}))).await.expect(201);
    let second = submit(&fixture, &body("keep", 2, json!({}))).await.expect(200);
    assert_eq!((&second["id"], &second["payload"]), (&first["id"], &json!(1)));
    assert_eq!((&first["deduplicated"], &second["deduplicated"]), (&json!(false), &json!(true)));
    assert_eq!(fixture.counts("q").await["submitted"], 1);
    fixture.end().await;
}

#[tokio::test]
async fn key_is_free_once_its_task_has_ended() {
    let fixture = Fixture::start().await;
    submit(&fixture, &body("keep", 1, json!({}))).await.expect(201);
    let claimed = fixture.claim_one("q").await;
    submit(&fixture, &body("keep", 2, json!({}))).await.expect(200);
    fixture.http.post("/complete", &report(&claimed)).await.expect(200);
    submit(&fixture, &body("keep", 3, json!({}))).await.expect(201);
    fixture.end().await;
}

#[tokio::test]
async fn keys_are_scoped_by_queue_and_routing_key() {
    let fixture = Fixture::start().await;
    submit(&fixture, &body("keep", 1, json!({}))).await.expect(201);
    submit(&fixture, &body("keep", 2, json!({"queue": "other"}))).await.expect(201);
    submit(&fixture, &body("keep", 3, json!({"key": "k"}))).await.expect(201);
    submit(&fixture, &body("keep", 4, json!({"key": "k"}))).await.expect(200);
    fixture.end().await;
}

#[tokio::test]
async fn replace_updates_the_content_of_the_waiting_task() {
    let fixture = Fixture::start().await;
    let full = json!({"expires_in_ms": 60_000, "max_run_ms": 5000, "retain_ms": 10_000, "tags": ["old"]});
    let first = submit(&fixture, &body("replace", 1, full)).await.expect(201);

    let more = json!({"priority": 9, "tags": ["new"], "max_attempts": 2});
    let second = submit(&fixture, &body("replace", 2, more)).await.expect(200);

    assert_eq!((&second["id"], &second["payload"], &second["priority"]), (&first["id"], &json!(2), &json!(9)));
    assert_eq!((&second["tags"], &second["max_attempts"]), (&json!(["new"]), &json!(2)));
    assert_eq!(second["expires_at"], Value::Null);
    assert_eq!(fixture.claim_one("q").await["priority"], 9);
    fixture.end().await;
}

#[tokio::test]
async fn debounce_restarts_the_delay() {
    let fixture = Fixture::start().await;
    let first = submit(&fixture, &body("debounce", 1, json!({"delay_ms": 10_000}))).await.expect(201);
    fixture.advance(8000);
    let second = submit(&fixture, &body("debounce", 2, json!({"delay_ms": 10_000}))).await.expect(200);
    assert_eq!(second["id"], first["id"]);
    fixture.advance(8000);
    assert!(fixture.claim_now("q", 1).await.is_empty());
    fixture.advance(2000);
    assert_eq!(fixture.claim_one("q").await["payload"], 2);
    fixture.end().await;
}

#[tokio::test]
async fn debounce_moves_a_ready_task_to_scheduled_and_back() {
    let fixture = Fixture::start().await;
    submit(&fixture, &body("debounce", 1, json!({}))).await.expect(201);
    let waiting = submit(&fixture, &body("debounce", 2, json!({"delay_ms": 60_000}))).await.expect(200);
    assert_eq!(waiting["state"], "scheduled");
    let ready = submit(&fixture, &body("debounce", 3, json!({}))).await.expect(200);
    assert_eq!(ready["state"], "ready");
    assert_eq!(fixture.claim_one("q").await["payload"], 3);
    fixture.end().await;
}

#[tokio::test]
async fn replaced_task_has_the_fields_of_a_new_task() {
    let fixture = Fixture::start().await;
    let old = json!({"expires_in_ms": 60_000, "max_run_ms": 5000, "retain_ms": 10_000, "tags": ["old"], "priority": 9,
        "max_attempts": 1, "max_acquired": 1, "headers": {"a": "b"}, "backoff": {"kind": "fixed", "base_ms": 1}});
    for new in [json!({}), old.clone()] {
        for mode in ["replace", "debounce"] {
            let first = submit(&fixture, &body("keep", 1, old.clone())).await.expect(201);
            let mut replaced = submit(&fixture, &body(mode, 2, new.clone())).await.expect(200);
            let mut fresh = new.clone();
            fresh["dedupe"] = json!({"key": "another", "mode": mode});
            let mut fresh = submit(&fixture, &body(mode, 2, fresh)).await.expect(201);
            for task in [&mut replaced, &mut fresh] {
                for name in ["id", "slot", "created_at", "expires_at", "deduplicated"] {
                    task.as_object_mut().unwrap().remove(name);
                }
            }
            assert_eq!(replaced, fresh);
            assert_eq!(fixture.task(&first["id"]).await["expires_at"].is_null(), new == json!({}));
            fixture.http.post("/queues/q/purge", &json!({"states": ["ready"]})).await.expect(200);
        }
    }
    fixture.end().await;
}

#[tokio::test]
async fn replaced_content_gets_fresh_attempts_at_its_own_time() {
    let fixture = Fixture::start().await;
    for mode in ["replace", "debounce"] {
        submit(&fixture, &body(mode, 1, json!({"max_attempts": 2}))).await.expect(201);
        let claimed = fixture.claim_one("q").await;
        let beat = json!({"tasks": [report_with(&claimed, json!({"progress": 7}))]});
        fixture.http.post("/heartbeat", &beat).await.expect(200);
        let failed = report_with(&claimed, json!({"error": {"message": "m"}, "retry_in_ms": 3_600_000}));
        assert_eq!(fixture.http.post("/fail", &failed).await.expect(200)["state"], "scheduled");

        let replaced = submit(&fixture, &body(mode, 2, json!({"max_attempts": 2}))).await.expect(200);
        assert_eq!((&replaced["state"], &replaced["attempts"]), (&json!("ready"), &json!(0)));
        assert_eq!((&replaced["progress"], &replaced["run_at"]), (&Value::Null, &Value::Null));
        let claimed = fixture.claim_one("q").await;
        assert_eq!((&claimed["payload"], &claimed["attempt"]), (&json!(2), &json!(1)));
        let failed = report_with(&claimed, json!({"error": {"message": "m"}, "retry_in_ms": 3_600_000}));
        assert_eq!(fixture.http.post("/fail", &failed).await.expect(200)["state"], "scheduled");
        assert_eq!(fixture.task(&claimed["id"]).await["errors"].as_array().unwrap().len(), 2, "errors are history");
        fixture.http.post_nothing(&format!("/tasks/{}/cancel", text(&claimed["id"]))).await.expect(200);
    }
    fixture.end().await;
}

#[tokio::test]
async fn replace_of_a_delayed_task_keeps_its_delay() {
    let fixture = Fixture::start().await;
    let first = submit(&fixture, &body("replace", 1, json!({"delay_ms": 60_000}))).await.expect(201);
    let second = submit(&fixture, &body("replace", 2, json!({}))).await.expect(200);
    assert_eq!((&second["state"], &second["run_at"]), (&json!("scheduled"), &first["run_at"]));
    fixture.end().await;
}

#[tokio::test]
async fn task_debounced_to_now_is_behind_the_ready_tasks_of_its_slot() {
    let fixture = Fixture::start().await;
    for delay_ms in [60_000, 0] {
        let keyed = |more: Value| {
            let mut more = more;
            more["key"] = json!("k");
            more
        };
        submit(&fixture, &body("debounce", 1, keyed(json!({"delay_ms": delay_ms})))).await.expect(201);
        fixture.submit_with(json!({"queue": "q", "key": "k", "payload": "behind"})).await;
        submit(&fixture, &body("debounce", 2, keyed(json!({})))).await.expect(200);
        let claimed = fixture.claim_now("q", 2).await;
        let order: Vec<&Value> = claimed.iter().map(|task| &task["payload"]).collect();
        assert_eq!(order, [&json!("behind"), &json!(2)]);
        for task in &claimed {
            fixture.http.post("/complete", &report(task)).await.expect(200);
        }
    }
    fixture.end().await;
}

#[tokio::test]
async fn replaced_task_holds_its_key_for_the_new_window() {
    let fixture = Fixture::start().await;
    let windowed = |payload: i64, window_ms: i64| {
        body("replace", payload, json!({"dedupe": {"key": "d", "mode": "replace", "window_ms": window_ms}}))
    };
    let first = submit(&fixture, &windowed(1, 5000)).await.expect(201);
    submit(&fixture, &windowed(2, 60_000)).await.expect(200);
    fixture.advance(6000);
    assert_eq!(submit(&fixture, &body("replace", 3, json!({}))).await.expect(200)["id"], first["id"]);
    fixture.advance(100_000);
    assert_eq!(submit(&fixture, &windowed(4, 1)).await.expect(200)["id"], first["id"]);
    fixture.advance(1000);
    submit(&fixture, &windowed(5, 1)).await.expect(201);
    fixture.end().await;
}

#[tokio::test]
async fn key_is_free_after_its_window_though_the_task_has_not_ended() {
    let fixture = Fixture::start().await;
    let windowed = json!({"queue": "q", "dedupe": {"key": "d", "window_ms": 5000}});
    submit(&fixture, &windowed).await.expect(201);
    submit(&fixture, &windowed).await.expect(200);
    fixture.advance(5000);
    submit(&fixture, &windowed).await.expect(201);
    assert_eq!(fixture.claim_now("q", 10).await.len(), 2);
    fixture.end().await;
}

#[tokio::test]
async fn retry_is_rejected_while_another_task_holds_the_key() {
    let fixture = Fixture::start().await;
    let first = submit(&fixture, &body("keep", 1, json!({}))).await.expect(201);
    let path = format!("/tasks/{}", text(&first["id"]));
    fixture.http.post_nothing(&format!("{path}/cancel")).await.expect(200);
    let second = submit(&fixture, &body("keep", 2, json!({}))).await.expect(201);
    assert_eq!(fixture.http.post_nothing(&format!("{path}/retry")).await.problem(409).0, "dedupe_conflict");
    fixture.http.post_nothing(&format!("/tasks/{}/cancel", text(&second["id"]))).await.expect(200);
    fixture.http.post_nothing(&format!("{path}/retry")).await.expect(200);
    let third = submit(&fixture, &body("keep", 3, json!({}))).await.expect(200);
    assert_eq!(third["id"], first["id"]);
    fixture.end().await;
}

#[tokio::test]
async fn batch_with_one_key_many_times_creates_one_task() {
    let fixture = Fixture::start().await;
    let tasks: Vec<Value> = (0..10).map(|n| body("replace", n, json!({}))).collect();
    let results = fixture.http.post("/tasks/batch", &json!({"tasks": tasks})).await.expect(200)["results"].clone();
    let statuses: Vec<i64> = results.as_array().unwrap().iter().map(|one| one["status"].as_i64().unwrap()).collect();
    assert_eq!(statuses, [201, 200, 200, 200, 200, 200, 200, 200, 200, 200]);
    assert_eq!(fixture.claim_one("q").await["payload"], 9);
    fixture.end().await;
}
