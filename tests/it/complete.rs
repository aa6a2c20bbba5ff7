//! A completion ends a task once, and may claim the next in the same round trip.

use serde_json::json;

use crate::support::{Fixture, report, report_with};

#[tokio::test]
async fn completed_task_keeps_its_result() {
    let fixture = Fixture::start().await;
    let id = fixture.submit("q", json!(1)).await["id"].clone();
    let claimed = fixture.claim_one("q").await;

    let answer = fixture.http.post("/complete", &report_with(&claimed, json!({"result": {"sum": 3}}))).await;

    assert_eq!(
        answer.expect(200),
        json!({"id": id, "state": "completed", "tasks": null, "claim_problem": null, "adjusted": []})
    );
    let task = fixture.task(&id).await;
    assert_eq!((&task["state"], &task["result"]), (&json!("completed"), &json!({"sum": 3})));
    assert!(task["finished_at"].is_string() && task["lease_until"].is_null());
    fixture.end().await;
}

#[tokio::test]
async fn repeated_completion_gets_the_same_reply_and_changes_nothing() {
    let fixture = Fixture::start().await;
    let id = fixture.submit("q", json!(1)).await["id"].clone();
    let claimed = fixture.claim_one("q").await;
    let first = fixture.http.post("/complete", &report_with(&claimed, json!({"result": 1}))).await.expect(200);

    let again = fixture.http.post("/complete", &report_with(&claimed, json!({"result": 2}))).await.expect(200);

    assert_eq!(first, again);
    assert_eq!(fixture.task(&id).await["result"], 1);
    assert_eq!(fixture.counts("q").await["completed"], 1);
    fixture.end().await;
}

#[tokio::test]
async fn other_report_with_the_token_of_an_ended_lease_is_rejected() {
    let fixture = Fixture::start().await;
    fixture.submit("q", json!(1)).await;
    let claimed = fixture.claim_one("q").await;
    fixture.http.post("/complete", &report(&claimed)).await.expect(200);

    for path in ["/release", "/fail"] {
        let body = match path {
            "/fail" => report_with(&claimed, json!({"error": {"type": "e", "message": "m"}})),
            _ => report(&claimed),
        };
        let answer = fixture.http.post(path, &body).await;
        assert_eq!(answer.problem(409).0, "lease_lost");
        assert_eq!(answer.json()["state"], "completed");
    }
    fixture.end().await;
}

#[tokio::test]
async fn stale_foreign_and_malformed_tokens_change_nothing() {
    let fixture = Fixture::start().await;
    let id = fixture.submit("q", json!(1)).await["id"].clone();
    let other = fixture.submit("other", json!(2)).await["id"].clone();
    let first = fixture.claim_one("q").await;
    let foreign = fixture.claim_one("other").await;
    assert_eq!(foreign["id"], other);
    fixture.http.post("/release", &report(&first)).await.expect(200);
    let second = fixture.claim_one("q").await;
    let before = fixture.task(&id).await;

    for lease in [&first["lease"], &foreign["lease"], &json!("garbage"), &json!("")] {
        let answer = fixture.http.post("/complete", &json!({"id": id, "lease": lease})).await;
        assert_eq!(answer.problem(409).0, "lease_lost", "{lease}");
    }

    assert_eq!(fixture.task(&id).await, before);
    fixture.http.post("/complete", &report(&second)).await.expect(200);
    fixture.end().await;
}

#[tokio::test]
async fn expired_lease_is_lost_whether_or_not_the_task_was_claimed_again() {
    let fixture = Fixture::start().await;
    fixture.submit("q", json!(1)).await;
    let claimed = fixture.claim_one("q").await;

    fixture.advance(60_000);

    assert_eq!(fixture.http.post("/complete", &report(&claimed)).await.problem(409).0, "lease_lost");
    fixture.end().await;
}

#[tokio::test]
async fn completion_claims_the_next_task() {
    let fixture = Fixture::with_shards(1).await;
    fixture.submit("q", json!(1)).await;
    fixture.submit("q", json!(2)).await;
    let first = fixture.claim_one("q").await;

    let body = report_with(&first, json!({"claim": {"queues": ["q"]}}));
    let answer = fixture.http.post("/complete", &body).await.expect(200);

    assert_eq!(answer["state"], "completed");
    assert_eq!(answer["tasks"][0]["payload"], 2);
    let again = fixture.http.post("/complete", &body).await.expect(200);
    assert_eq!(again, answer, "a repeated completion returns the same next task");
    let none = report_with(&answer["tasks"][0], json!({"claim": {"queues": ["q"]}}));
    assert_eq!(fixture.http.post("/complete", &none).await.expect(200)["tasks"], json!([]));
    fixture.end().await;
}

#[tokio::test]
async fn rejected_completion_claims_no_task() {
    let fixture = Fixture::start().await;
    fixture.submit("q", json!(1)).await;
    let first = fixture.claim_one("q").await;
    fixture.submit("q", json!(2)).await;

    let body = json!({"id": first["id"], "lease": "nobody's", "claim": {"queues": ["q"]}});
    assert_eq!(fixture.http.post("/complete", &body).await.problem(409).0, "lease_lost");

    assert_eq!(fixture.counts("q").await["ready"], 1);
    fixture.end().await;
}

#[tokio::test]
async fn waiting_completion_gets_a_task_submitted_later() {
    let fixture = Fixture::start().await;
    fixture.submit("q", json!(1)).await;
    let first = fixture.claim_one("q").await;
    let http = fixture.http.clone();
    let body = report_with(&first, json!({"claim": {"queues": ["q"], "wait_ms": 20_000}}));
    let waiting = tokio::spawn(async move { http.post("/complete", &body).await });

    fixture.until_state(&first["id"], "completed").await;
    fixture.submit("q", json!(2)).await;

    assert_eq!(waiting.await.unwrap().expect(200)["tasks"][0]["payload"], 2);
    fixture.end().await;
}
