//! Cancel, retry and delete.

use serde_json::{Value, json};

use crate::support::{Answer, Fixture, report, report_with, text};

async fn verb(fixture: &Fixture, id: &Value, verb: &str) -> Answer {
    fixture.http.post_nothing(&format!("/tasks/{}/{verb}", text(id))).await
}

#[tokio::test]
async fn waiting_task_is_cancelled_at_once_and_only_once() {
    let fixture = Fixture::start().await;
    for more in [json!({}), json!({"delay_ms": 60_000})] {
        let mut body = json!({"queue": "q"});
        body.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        let id = fixture.submit_with(body).await["id"].clone();
        let first = verb(&fixture, &id, "cancel").await.expect(200);
        assert_eq!(first["state"], "cancelled");
        assert_eq!(verb(&fixture, &id, "cancel").await.expect(200), first);
    }
    assert!(fixture.claim_now("q", 10).await.is_empty());
    fixture.end().await;
}

#[tokio::test]
async fn completion_wins_over_a_requested_cancel() {
    let fixture = Fixture::start().await;
    fixture.submit("q", json!(1)).await;
    let claimed = fixture.claim_one("q").await;
    let flagged = verb(&fixture, &claimed["id"], "cancel").await.expect(200);
    assert_eq!((&flagged["state"], &flagged["cancel_requested"]), (&json!("leased"), &json!(true)));
    fixture.http.post("/complete", &report(&claimed)).await.expect(200);
    assert_eq!(verb(&fixture, &claimed["id"], "cancel").await.problem(409).0, "already_ended");
    fixture.end().await;
}

#[tokio::test]
async fn lease_with_a_requested_cancel_ends_cancelled_unless_completed() {
    let fixture = Fixture::start().await;
    for end in ["/fail", "/release", "lease"] {
        fixture.submit("q", json!(1)).await;
        let claimed = fixture.claim_one("q").await;
        verb(&fixture, &claimed["id"], "cancel").await.expect(200);
        match end {
            "/fail" => {
                let body = report_with(&claimed, json!({"error": {"type": "e", "message": ""}}));
                assert_eq!(fixture.http.post(end, &body).await.expect(200)["state"], "cancelled");
            }
            "/release" => {
                assert_eq!(fixture.http.post(end, &report(&claimed)).await.expect(200)["state"], "cancelled");
            }
            _ => {
                fixture.advance(60_001);
                fixture.until_state(&claimed["id"], "cancelled").await;
            }
        }
    }
    fixture.end().await;
}

#[tokio::test]
async fn retried_task_starts_with_no_attempts() {
    let fixture = Fixture::start().await;
    let id = fixture.submit_with(json!({"queue": "q", "max_attempts": 1, "expires_in_ms": 60_000})).await["id"].clone();
    let claimed = fixture.claim_one("q").await;
    let body = report_with(&claimed, json!({"error": {"type": "e", "message": "m"}}));
    assert_eq!(fixture.http.post("/fail", &body).await.expect(200)["state"], "dead");
    fixture.advance(30_000);

    let task = verb(&fixture, &id, "retry").await.expect(200);

    assert_eq!((&task["state"], &task["attempts"]), (&json!("ready"), &json!(0)));
    assert_ne!(task["expires_at"], claimed["expires_at"]);
    assert_eq!(task["errors"].as_array().unwrap().len(), 1);
    assert_eq!(fixture.claim_one("q").await["attempt"], 1);
    assert_eq!(verb(&fixture, &id, "retry").await.problem(409).0, "not_retryable");
    fixture.end().await;
}

#[tokio::test]
async fn completed_task_is_not_retryable() {
    let fixture = Fixture::start().await;
    fixture.submit("q", json!(1)).await;
    let claimed = fixture.claim_one("q").await;
    fixture.http.post("/complete", &report(&claimed)).await.expect(200);
    let answer = verb(&fixture, &claimed["id"], "retry").await;
    assert_eq!(answer.problem(409).0, "not_retryable");
    assert_eq!(answer.json()["state"], "completed");
    fixture.end().await;
}

#[tokio::test]
async fn delete_of_a_task_that_has_not_ended_is_rejected() {
    let fixture = Fixture::start().await;
    let id = fixture.submit("q", json!(1)).await["id"].clone();
    let path = format!("/tasks/{}", text(&id));
    assert_eq!(fixture.http.delete(&path).await.problem(409).0, "not_ended");
    verb(&fixture, &id, "cancel").await.expect(200);
    assert_eq!(fixture.http.delete(&path).await.status, 204);
    assert_eq!(fixture.http.get(&path).await.problem(404).0, "task_not_found");
    assert_eq!(fixture.http.delete(&path).await.problem(404).0, "task_not_found");
    assert_eq!(fixture.counts("q").await["deleted"], 1);
    fixture.end().await;
}

#[tokio::test]
async fn task_in_the_middle_of_a_slot_can_be_cancelled() {
    let fixture = Fixture::with_shards(1).await;
    let mut ids = Vec::new();
    for n in 0..5 {
        ids.push(fixture.submit("q", json!(n)).await["id"].clone());
    }
    verb(&fixture, &ids[2], "cancel").await.expect(200);
    let got: Vec<Value> = fixture.claim_now("q", 10).await.iter().map(|task| task["payload"].clone()).collect();
    assert_eq!(got, [json!(0), json!(1), json!(3), json!(4)]);
    fixture.end().await;
}
