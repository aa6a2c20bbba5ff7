//! Delayed tasks run at their time and not before.

use serde_json::json;

use crate::support::{Fixture, report, report_with, text};

#[tokio::test]
async fn delayed_task_is_not_claimable_before_its_time() {
    let fixture = Fixture::start().await;
    let id = fixture.submit_with(json!({"queue": "q", "delay_ms": 10_000})).await["id"].clone();
    fixture.advance(9_000);
    assert!(fixture.claim_now("q", 1).await.is_empty());
    fixture.advance(1_000);
    assert_eq!(fixture.claim_one("q").await["id"], id);
    fixture.end().await;
}

#[tokio::test]
async fn run_at_in_the_past_makes_the_task_ready_now() {
    let fixture = Fixture::start().await;
    let now = jiff::Timestamp::now();
    let soon = (now + jiff::SignedDuration::from_secs(3600)).to_string();
    let past = "1990-01-01T00:00:00Z";
    let later = fixture.submit_with(json!({"queue": "q", "run_at": soon})).await;
    let at_once = fixture.submit_with(json!({"queue": "q", "run_at": past})).await;
    assert_eq!((&later["state"], &at_once["state"]), (&json!("scheduled"), &json!("ready")));
    assert!(text(&later["run_at"]).ends_with('Z'));
    assert_eq!(fixture.claim_one("q").await["id"], at_once["id"]);
    fixture.advance(3_600_000);
    assert_eq!(fixture.claim_one("q").await["id"], later["id"]);
    fixture.end().await;
}

#[tokio::test]
async fn delayed_tasks_become_ready_in_the_order_of_their_times() {
    let fixture = Fixture::with_shards(1).await;
    for n in [5, 3, 9, 1, 7] {
        fixture.submit_with(json!({"queue": "q", "delay_ms": n * 1000, "payload": n})).await;
    }
    fixture.advance(20_000);
    let mut got = Vec::new();
    for _ in 0..5 {
        got.push(fixture.claim_one("q").await["payload"].as_i64().unwrap());
    }
    assert_eq!(got, [1, 3, 5, 7, 9]);
    fixture.end().await;
}

#[tokio::test]
async fn delayed_tasks_beyond_one_call_all_become_ready() {
    let fixture = Fixture::start().await;
    for _ in 0..2 {
        let tasks: Vec<_> = (0..700).map(|_| json!({"queue": "q", "delay_ms": 60_000})).collect();
        fixture.http.post("/tasks/batch", &json!({"tasks": tasks})).await.expect(200);
    }
    fixture.advance(60_000);
    fixture.until(|| async { (fixture.counts("q").await["ready"] == 1400).then_some(()) }).await;
    fixture.end().await;
}

#[tokio::test]
async fn scheduled_task_is_run_now_at_a_request() {
    let fixture = Fixture::start().await;
    let task = fixture.submit_with(json!({"queue": "q", "delay_ms": 60_000, "key": "a"})).await;
    fixture.submit_with(json!({"queue": "q", "key": "a", "payload": "before it"})).await;
    let path = format!("/tasks/{}/run", text(&task["id"]));

    let run = fixture.http.post_nothing(&path).await.expect(200);

    assert_eq!((&run["state"], &run["id"]), (&json!("ready"), &task["id"]));
    assert_eq!(fixture.http.post_nothing(&path).await.expect(200), run, "a ready task stays as it is");
    let claimed = fixture.claim_now("q", 2).await;
    assert_eq!((&claimed[0]["payload"], &claimed[1]["id"]), (&json!("before it"), &task["id"]));
    let (code, _) = fixture.http.post_nothing(&path).await.problem(409);
    assert_eq!(code, "not_waiting");
    fixture.http.post("/complete", &report(&claimed[1])).await.expect(200);
    assert_eq!(fixture.http.post_nothing(&path).await.problem(409).0, "not_waiting");
    let missing = format!("/tasks/{}/run", uuid::Uuid::now_v7());
    assert_eq!(fixture.http.post_nothing(&missing).await.problem(404).0, "task_not_found");
    fixture.end().await;
}

#[tokio::test]
async fn retry_in_wait_is_run_now_and_wakes_a_waiting_claim() {
    // Without a wake-up, the claim would end before the next poll.
    let fixture = Fixture::with(|written| written.poll_interval_ms = Some(60_000)).await;
    let id = fixture.submit("q", json!(1)).await["id"].clone();
    let claimed = fixture.claim_one("q").await;
    let failure = report_with(&claimed, json!({"error": {"message": "m"}, "retry_in_ms": 3_600_000}));
    fixture.http.post("/fail", &failure).await.expect(200);
    let run = async {
        let is_waiting = async || fixture.http.get("/metrics").await.text.contains("slotwheel_waiting_requests 1\n");
        fixture.until(|| async { is_waiting().await.then_some(()) }).await;
        // The call of this claim, and so that of the waiting one, found nothing.
        assert!(fixture.claim_now("q", 1).await.is_empty());
        fixture.http.post_nothing(&format!("/tasks/{}/run", text(&id))).await.expect(200)
    };
    let (again, run) = tokio::join!(fixture.claim_one("q"), run);
    assert_eq!((&again["id"], &again["attempt"], &run["attempts"]), (&id, &json!(2), &json!(1)));
    fixture.end().await;
}

#[tokio::test]
async fn delay_beyond_the_expiry_is_rejected() {
    let fixture = Fixture::start().await;
    let now = jiff::Timestamp::now();
    let at = |seconds: i64| (now + jiff::SignedDuration::from_secs(seconds)).to_string();
    let dedupe = json!({"key": "d", "mode": "debounce"});
    fixture.submit_with(json!({"queue": "q", "dedupe": dedupe})).await;
    for (fields, pointer) in [
        (json!({"delay_ms": 60_000, "expires_in_ms": 60_000}), "/delay_ms"),
        (json!({"delay_ms": 60_001, "expires_in_ms": 60_000, "dedupe": dedupe}), "/delay_ms"),
        (json!({"run_at": at(120), "expires_in_ms": 60_000}), "/run_at"),
        (json!({"run_at": at(120), "expires_in_ms": 60_000, "dedupe": dedupe}), "/run_at"),
    ] {
        let mut body = fields.clone();
        body["queue"] = json!("q");
        let answer = fixture.http.post("/tasks", &body).await;
        assert_eq!(answer.problem(422).0, "invalid_time", "{fields}");
        assert_eq!(answer.json()["errors"][0]["pointer"], pointer);
        let batch = fixture.http.post("/tasks/batch", &json!({"tasks": [{"queue": "q"}, body]})).await.expect(200);
        assert_eq!(batch["results"][1]["problem"]["errors"][0]["pointer"], format!("/tasks/1{pointer}"), "{fields}");
    }
    for fields in [
        json!({"queue": "r", "delay_ms": 59_999, "expires_in_ms": 60_000}),
        json!({"queue": "r", "run_at": at(30), "expires_in_ms": 60_000}),
        json!({"queue": "r", "run_at": at(-30), "expires_in_ms": 1000}),
    ] {
        fixture.submit_with(fields).await;
    }
    assert_eq!(fixture.counts("q").await["submitted"], 5);
    fixture.end().await;
}
