//! `GET /tasks/{id}?wait_ms=` responds once the task has ended.

use serde_json::json;

use crate::support::{Fixture, report, report_with, text};

#[tokio::test]
async fn waiting_request_gets_the_result() {
    let fixture = Fixture::start().await;
    let id = fixture.submit("q", json!(1)).await["id"].clone();
    let http = fixture.http.clone();
    let path = format!("/tasks/{}?wait_ms=20000", text(&id));
    let waiting = tokio::spawn(async move { http.get(&path).await });
    let claimed = fixture.claim_one("q").await;
    fixture.http.post("/complete", &report_with(&claimed, json!({"result": 42}))).await.expect(200);
    let task = waiting.await.unwrap().expect(200);
    assert_eq!((&task["state"], &task["result"]), (&json!("completed"), &json!(42)));
    fixture.end().await;
}

#[tokio::test]
async fn completion_at_another_server_ends_the_wait() {
    let mut fixture = Fixture::start().await;
    let other = fixture.another_server().await;
    let id = fixture.submit("q", json!(1)).await["id"].clone();
    let path = format!("/tasks/{}?wait_ms=20000", text(&id));
    let waiting = tokio::spawn(async move { other.get(&path).await });
    let claimed = fixture.claim_one("q").await;
    fixture.http.post("/complete", &report(&claimed)).await.expect(200);
    assert_eq!(waiting.await.unwrap().expect(200)["state"], "completed");
    fixture.end().await;
}

#[tokio::test]
async fn wait_that_times_out_returns_the_current_task() {
    let fixture = Fixture::start().await;
    let id = fixture.submit("q", json!(1)).await["id"].clone();
    let task = fixture.http.get(&format!("/tasks/{}?wait_ms=20", text(&id))).await.expect(200);
    assert_eq!(task["state"], "ready");
    fixture.end().await;
}

#[tokio::test]
async fn ended_or_unknown_task_is_answered_without_waiting() {
    let fixture = Fixture::start().await;
    let id = fixture.submit("q", json!(1)).await["id"].clone();
    fixture.http.post_nothing(&format!("/tasks/{}/cancel", text(&id))).await.expect(200);
    let task = fixture.http.get(&format!("/tasks/{}?wait_ms=60000", text(&id))).await.expect(200);
    assert_eq!(task["state"], "cancelled");
    let none = "/tasks/0190c7a0-5dcb-7b6f-8d6e-2f1f3a4b5c6d?wait_ms=60000";
    assert_eq!(fixture.http.get(none).await.problem(404).0, "task_not_found");
    fixture.end().await;
}
