//! Ended tasks are kept for their retention, and no longer.

use serde_json::{Value, json};

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
