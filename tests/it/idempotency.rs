//! An Idempotency-Key identifies one task for 24 hours.

use serde_json::{Value, json};

use crate::support::{Answer, Fixture, report, text};

async fn submit(fixture: &Fixture, key: &str, body: &str) -> Answer {
    fixture.http.post_with("/tasks", &[("idempotency-key", key)], body.as_bytes()).await
}

#[tokio::test]
async fn same_key_and_body_return_the_same_task() {
    let fixture = Fixture::start().await;
    let first = submit(&fixture, "a", r#"{"queue":"q","payload":1}"#).await.expect(201);
    let again = submit(&fixture, "\"a\"", r#"{"queue":"q","payload":1}"#).await.expect(201);
    assert_eq!(first["id"], again["id"]);
    assert_eq!(fixture.counts("q").await["submitted"], 1);
    fixture.end().await;
}

#[tokio::test]
async fn same_key_with_another_body_is_rejected() {
    let fixture = Fixture::start().await;
    submit(&fixture, "a", r#"{"queue":"q","payload":1}"#).await.expect(201);
    let (code, pointer) = submit(&fixture, "a", r#"{"queue":"q","payload":2}"#).await.problem(422);
    assert_eq!((code.as_str(), pointer.as_deref()), ("idempotency_mismatch", Some("header:Idempotency-Key")));
    fixture.end().await;
}

#[tokio::test]
async fn repeated_submit_is_answered_after_the_task_is_deleted() {
    let fixture = Fixture::start().await;
    let body = r#"{"queue":"q","payload":1}"#;
    let id = submit(&fixture, "a", body).await.expect(201)["id"].clone();
    let claimed = fixture.claim_one("q").await;
    fixture.http.post("/complete", &report(&claimed)).await.expect(200);
    assert_eq!(submit(&fixture, "a", body).await.expect(201)["state"], "completed");
    fixture.http.delete(&format!("/tasks/{}", text(&id))).await;
    let again = submit(&fixture, "a", body).await.expect(201);
    assert_eq!((&again["id"], &again["state"]), (&id, &json!(null)));
    assert_eq!(fixture.counts("q").await["submitted"], 1);
    fixture.end().await;
}

#[tokio::test]
async fn key_expires_a_day_after_its_stored_time() {
    let fixture = Fixture::start().await;
    let body = r#"{"queue":"q","payload":1}"#;
    let first = submit(&fixture, "a", body).await.expect(201);
    fixture.advance(24 * 3_600_000);
    assert_ne!(submit(&fixture, "a", body).await.expect(201)["id"], first["id"]);
    fixture.end().await;
}

#[tokio::test]
async fn concurrent_submits_with_one_key_create_one_task() {
    let fixture = Fixture::start().await;
    let answers = futures_util::future::join_all((0..20).map(|_| submit(&fixture, "a", r#"{"queue":"q"}"#))).await;
    let mut ids: Vec<String> = answers.iter().map(|answer| text(&answer.expect(201)["id"]).to_owned()).collect();
    ids.dedup();
    assert_eq!(ids.len(), 1);
    assert_eq!(fixture.counts("q").await["submitted"], 1);
    fixture.end().await;
}

#[tokio::test]
async fn batch_items_have_their_own_keys() {
    let fixture = Fixture::start().await;
    let body = json!({"tasks": [
        {"queue": "q", "idempotency_key": "a"},
        {"queue": "q", "idempotency_key": "b"},
        {"queue": "q", "payload": 1, "idempotency_key": "a"},
    ]});
    let results = fixture.http.post("/tasks/batch", &body).await.expect(200)["results"].clone();
    assert_eq!(results[2]["problem"]["code"], "idempotency_mismatch");
    assert_eq!(results[2]["problem"]["errors"][0]["pointer"], "/tasks/2/idempotency_key");
    let again = fixture.http.post("/tasks/batch", &body).await.expect(200)["results"].clone();
    assert_eq!(again[0]["task"]["id"], results[0]["task"]["id"]);
    let header = fixture.http.post_with("/tasks/batch", &[("idempotency-key", "a")], body.to_string().as_bytes()).await;
    assert_eq!(header.problem(400).0, "idempotency_in_batch");
    fixture.end().await;
}

#[tokio::test]
async fn refused_submit_does_not_use_up_its_key() {
    let fixture = Fixture::start().await;
    let far = r#"{"queue":"q","run_at":"9000-01-01T00:00:00Z"}"#;
    assert_eq!(submit(&fixture, "a", far).await.problem(422).0, "invalid_time");
    assert_eq!(submit(&fixture, "a", far).await.problem(422).0, "invalid_time");
    let stored = submit(&fixture, "a", r#"{"queue":"q","payload":1}"#).await.expect(201);
    assert_eq!(submit(&fixture, "a", r#"{"queue":"q","payload":1}"#).await.expect(201)["id"], stored["id"]);
    assert_eq!(submit(&fixture, "a", far).await.problem(422).0, "idempotency_mismatch");
    let items = json!({"tasks": [
        {"queue": "q", "run_at": "9000-01-01T00:00:00Z", "idempotency_key": "b"},
        {"queue": "q", "payload": 2, "idempotency_key": "c"},
    ]});
    let results = fixture.http.post("/tasks/batch", &items).await.expect(200)["results"].clone();
    assert_eq!((&results[0]["status"], &results[1]["status"]), (&json!(422), &json!(201)));
    submit(&fixture, "b", r#"{"queue":"q"}"#).await.expect(201);
    assert_eq!(fixture.counts("q").await["submitted"], 3);
    fixture.end().await;
}

#[tokio::test]
async fn refused_batch_item_does_not_use_up_its_key_for_the_next() {
    let fixture = Fixture::start().await;
    let far = "9000-01-01T00:00:00Z";
    let dedupe = json!({"key": "d", "mode": "replace"});
    let items = json!({"tasks": [
        {"queue": "q", "run_at": far, "idempotency_key": "a"},
        {"queue": "q", "payload": 1, "idempotency_key": "a", "dedupe": dedupe},
        {"queue": "q", "payload": 2, "idempotency_key": "a"},
        {"queue": "q", "payload": 3, "dedupe": dedupe},
        {"queue": "q", "run_at": far, "idempotency_key": "b"},
        {"queue": "q", "run_at": far, "payload": 4, "idempotency_key": "b"},
        {"queue": "q", "payload": 5, "idempotency_key": "b"},
    ]});
    let results = fixture.http.post("/tasks/batch", &items).await.expect(200)["results"].clone();
    let statuses: Vec<&Value> = results.as_array().unwrap().iter().map(|result| &result["status"]).collect();
    assert_eq!(json!(statuses), json!([422, 201, 422, 200, 422, 422, 201]), "{results}");
    assert_eq!(results[2]["problem"]["code"], "idempotency_mismatch");
    assert_eq!(results[2]["problem"]["errors"][0]["pointer"], "/tasks/2/idempotency_key");
    // The tasks are stored in the order of the items: the last of them replaces the content.
    let mut payloads =
        [fixture.claim_one("q").await["payload"].clone(), fixture.claim_one("q").await["payload"].clone()];
    payloads.sort_by_key(Value::to_string);
    assert_eq!(payloads, [3, 5]);
    assert_eq!(fixture.counts("q").await["submitted"], 2);
    fixture.end().await;
}

#[tokio::test]
async fn bodies_are_compared_by_their_values() {
    let fixture = Fixture::start().await;
    let first = submit(&fixture, "a", r#"{"queue":"q","payload":{"a":1.0,"b":"é"},"priority":4}"#).await.expect(201);
    let reordered = r#" { "priority": 4, "key": null, "payload": {"b":"\u00e9", "a":1}, "queue":"q" } "#;
    assert_eq!(submit(&fixture, "a", reordered).await.expect(201)["id"], first["id"]);
    let item = json!({"idempotency_key": "a", "payload": {"b": "é", "a": 1}, "priority": 4, "queue": "q"});
    let results = fixture.http.post("/tasks/batch", &json!({"tasks": [item]})).await.expect(200)["results"].clone();
    assert_eq!(results[0]["task"]["id"], first["id"]);
    let list = r#"{"queue":"q","payload":{"a":1.1,"b":"é"},"priority":4}"#;
    assert_eq!(submit(&fixture, "a", list).await.problem(422).0, "idempotency_mismatch");
    fixture.end().await;
}

#[tokio::test]
async fn key_of_another_queue_is_another_key() {
    let fixture = Fixture::start().await;
    let first = submit(&fixture, "a", r#"{"queue":"q"}"#).await.expect(201);
    let other = submit(&fixture, "a", r#"{"queue":"other"}"#).await.expect(201);
    assert_ne!(first["id"], other["id"]);
    fixture.end().await;
}
