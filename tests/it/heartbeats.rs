//! Heartbeats extend leases, store progress, and return a requested cancel.

use serde_json::{Value, json};

use crate::support::{Fixture, report_with, text};

fn ms(time: &Value) -> i64 {
    text(time).parse::<jiff::Timestamp>().unwrap().as_millisecond()
}

async fn beat(fixture: &Fixture, task: &Value, more: Value) -> Value {
    let body = json!({"worker": "w", "tasks": [report_with(task, more)]});
    fixture.http.post("/heartbeat", &body).await.expect(200)["tasks"][0].clone()
}

#[tokio::test]
async fn heartbeat_extends_the_lease_by_the_claims_lease_ms() {
    let fixture = Fixture::start().await;
    let id = fixture.submit("q", json!(1)).await["id"].clone();
    let body = json!({"queues": ["q"], "lease_ms": 30_000});
    let claimed = fixture.http.post("/claim", &body).await.expect(200)["tasks"][0].clone();
    fixture.advance(20_000);

    let answer = beat(&fixture, &claimed, json!({"progress": {"done": 7}})).await;

    let gained = ms(&answer["lease_until"]) - ms(&claimed["lease_until"]);
    assert!((20_000..25_000).contains(&gained), "{gained}");
    assert_eq!((&answer["cancel_requested"], &answer["problem"]), (&json!(false), &Value::Null));
    assert_eq!(fixture.task(&id).await["progress"], json!({"done": 7}));
    fixture.advance(20_000);
    let answer = beat(&fixture, &claimed, json!({"lease_ms": 1000})).await;
    assert!(ms(&answer["lease_until"]) - ms(&claimed["lease_until"]) < 20_000);
    fixture.end().await;
}

#[tokio::test]
async fn heartbeat_does_not_extend_beyond_max_run_ms() {
    let fixture = Fixture::start().await;
    fixture.submit_with(json!({"queue": "q", "max_run_ms": 10_000})).await;
    let claimed = fixture.claim_one("q").await;
    fixture.advance(5000);
    let answer = beat(&fixture, &claimed, json!({})).await;
    assert_eq!(answer["lease_until"], claimed["lease_until"]);
    fixture.end().await;
}

#[tokio::test]
async fn heartbeat_with_a_lost_lease_fails_for_that_task_alone() {
    let fixture = Fixture::start().await;
    fixture.submit("q", json!(1)).await;
    let claimed = fixture.claim_one("q").await;
    let unknown = "0190c7a0-5dcb-7b6f-8d6e-2f1f3a4b5c6d";
    let tasks = json!([
        {"id": claimed["id"], "lease": "stale"},
        {"id": claimed["id"], "lease": claimed["lease"]},
        {"id": unknown, "lease": claimed["lease"]},
    ]);
    let answers = fixture.http.post("/heartbeat", &json!({"tasks": tasks})).await.expect(200)["tasks"].clone();
    assert_eq!(answers[0]["problem"]["code"], "lease_lost");
    assert!(answers[1]["lease_until"].is_string());
    assert_eq!(answers[2]["problem"]["code"], "task_not_found");
    fixture.end().await;
}

#[tokio::test]
async fn heartbeat_reports_a_requested_cancel() {
    let fixture = Fixture::start().await;
    fixture.submit("q", json!(1)).await;
    let claimed = fixture.claim_one("q").await;
    fixture.http.post_nothing(&format!("/tasks/{}/cancel", text(&claimed["id"]))).await.expect(200);
    assert_eq!(beat(&fixture, &claimed, json!({})).await["cancel_requested"], true);
    fixture.end().await;
}
