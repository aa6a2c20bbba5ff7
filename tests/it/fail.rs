//! Failures: an attempt is counted, the task waits for its backoff, and is retried until its attempts are used up.

use deadpool_redis::redis::cmd;
use serde_json::{Value, json};
use slotwheel::domain::id::TaskId;
use slotwheel::domain::queue::QueueName;

use crate::support::{Fixture, report, report_with, text};

fn failure(task: &Value, more: Value) -> Value {
    let mut body =
        report_with(task, json!({"error": {"type": "Timeout", "message": "too slow", "details": {"ms": 9}}}));
    for (name, value) in more.as_object().unwrap() {
        body[name] = value.clone();
    }
    body
}

#[tokio::test]
async fn failure_is_stored_with_worker_and_time() {
    let fixture = Fixture::start().await;
    let id = fixture.submit("q", json!(1)).await["id"].clone();
    let claimed = fixture.claim_one("q").await;

    let answer = fixture.http.post("/fail", &failure(&claimed, json!({"retry_in_ms": 60_000}))).await.expect(200);

    assert_eq!(answer["state"], "scheduled");
    let task = fixture.task(&id).await;
    assert_eq!((&task["attempts"], &task["run_at"]), (&json!(1), &answer["run_at"]));
    let error = &task["errors"][0];
    assert_eq!((&error["worker"], &error["type"], &error["attempt"]), (&json!("w"), &json!("Timeout"), &json!(1)));
    assert_eq!(error["details"], json!({"ms": 9}));
    fixture.end().await;
}

#[tokio::test]
async fn failure_without_an_error_type_is_stored_as_error() {
    let fixture = Fixture::start().await;
    let id = fixture.submit("q", json!(1)).await["id"].clone();
    let claimed = fixture.claim_one("q").await;

    fixture.http.post("/fail", &report_with(&claimed, json!({"error": {"message": "no"}}))).await.expect(200);

    let error = &fixture.task(&id).await["errors"][0];
    assert_eq!((&error["type"], &error["message"]), (&json!("Error"), &json!("no")));
    fixture.end().await;
}

#[tokio::test]
async fn task_is_dead_after_exactly_max_attempts() {
    let fixture = Fixture::start().await;
    let id = fixture.submit_with(json!({"queue": "q", "max_attempts": 3})).await["id"].clone();
    for attempt in 1..=3 {
        let claimed = fixture.claim_one("q").await;
        assert_eq!(claimed["attempt"], attempt);
        let answer = fixture.http.post("/fail", &failure(&claimed, json!({"retry_in_ms": 0}))).await.expect(200);
        assert_eq!(answer["state"], if attempt < 3 { "ready" } else { "dead" });
    }
    let task = fixture.task(&id).await;
    assert_eq!((&task["attempts"], &task["acquired"]), (&json!(3), &json!(3)));
    assert_eq!(task["errors"].as_array().unwrap().len(), 3);
    fixture.end().await;
}

#[tokio::test]
async fn non_retryable_failure_is_not_retried() {
    let fixture = Fixture::start().await;
    fixture.submit("q", json!(1)).await;
    let claimed = fixture.claim_one("q").await;
    let body = failure(&claimed, json!({"retry": false}));
    let first = fixture.http.post("/fail", &body).await.expect(200);
    assert_eq!((&first["state"], &first["run_at"]), (&json!("dead"), &Value::Null));
    assert_eq!(fixture.http.post("/fail", &body).await.expect(200), first);
    fixture.end().await;
}

#[tokio::test]
async fn backoffs_wait_as_configured() {
    let fixture = Fixture::start().await;
    for (backoff, waits) in [
        (
            json!({"kind": "exponential", "base_ms": 1000, "factor": 3, "max_ms": 5000, "jitter": "none"}),
            [1000, 3000, 5000],
        ),
        (json!({"kind": "fixed", "base_ms": 700, "jitter": "none"}), [700, 700, 700]),
        (json!({"kind": "list", "delays_ms": [10, 2000], "jitter": "none"}), [10, 2000, 2000]),
    ] {
        fixture.submit_with(json!({"queue": "q", "backoff": backoff})).await;
        for wait in waits {
            let claimed = fixture.claim_one("q").await;
            let answer = fixture.http.post("/fail", &failure(&claimed, json!({}))).await.expect(200);
            let task = fixture.task(&claimed["id"]).await;
            let failed_at: jiff::Timestamp =
                task["errors"].as_array().unwrap().last().unwrap()["at"].as_str().unwrap().parse().unwrap();
            let run_at: jiff::Timestamp = answer["run_at"].as_str().unwrap().parse().unwrap();
            assert_eq!(run_at.as_millisecond() - failed_at.as_millisecond(), wait);
            fixture.advance(wait);
        }
        let claimed = fixture.claim_one("q").await;
        fixture.http.post("/complete", &report(&claimed)).await.expect(200);
    }
    fixture.end().await;
}

#[tokio::test]
async fn expired_lease_counts_an_attempt_and_the_task_returns() {
    let fixture = Fixture::start().await;
    let body = json!({"queue": "q", "backoff": {"kind": "fixed", "base_ms": 0}});
    let id = fixture.submit_with(body).await["id"].clone();
    fixture.claim_one("q").await;

    fixture.advance(60_001);

    let again = fixture.claim_one("q").await;
    assert_eq!((&again["id"], &again["attempt"]), (&id, &json!(2)));
    let task = fixture.task(&id).await;
    assert_eq!((&task["errors"][0]["type"], &task["errors"][0]["worker"]), (&json!("lease_expired"), &json!("w")));
    fixture.end().await;
}

#[tokio::test]
async fn stale_entry_of_time_zero_keeps_no_task_from_its_retry() {
    let fixture = Fixture::start().await;
    let body = json!({"queue": "q", "backoff": {"kind": "fixed", "base_ms": 30_000, "jitter": "none"}});
    let id = fixture.submit_with(body).await["id"].clone();
    fixture.claim_one("q").await;
    let store = fixture.store().await;
    let keys = &store.shard_for_task(&TaskId::parse(text(&id)).unwrap()).keys;
    let leased = keys.leased(&QueueName::parse("q").unwrap());
    fixture.redis.ask::<()>(cmd("ZADD").arg(&leased).arg(0).arg("0123456789abcdef")).await;
    fixture.advance(61_000);
    fixture.until_state(&id, "scheduled").await;
    fixture.advance(31_000);
    fixture.until_state(&id, "ready").await;
    fixture.redis.ask::<()>(cmd("ZREM").arg(&leased).arg("0123456789abcdef")).await;
    fixture.end().await;
}

#[tokio::test]
async fn task_that_kills_its_workers_ends_dead() {
    let fixture = Fixture::start().await;
    let body = json!({"queue": "q", "max_attempts": 2, "backoff": {"kind": "fixed", "base_ms": 0}});
    let id = fixture.submit_with(body).await["id"].clone();
    for _ in 0..2 {
        fixture.claim_one("q").await;
        fixture.advance(60_001);
    }
    let task = fixture.until_state(&id, "dead").await;
    assert_eq!((&task["attempts"], &task["acquired"]), (&json!(2), &json!(2)));
    fixture.end().await;
}

#[tokio::test]
async fn last_ten_errors_are_kept_within_64_kib() {
    let fixture = Fixture::start().await;
    let id = fixture.submit_with(json!({"queue": "q", "max_attempts": 1000})).await["id"].clone();
    for _ in 0..12 {
        let claimed = fixture.claim_one("q").await;
        fixture.http.post("/fail", &failure(&claimed, json!({"retry_in_ms": 0}))).await.expect(200);
    }
    let kept = fixture.task(&id).await["errors"].clone();
    let attempts: Vec<i64> = kept.as_array().unwrap().iter().map(|error| error["attempt"].as_i64().unwrap()).collect();
    assert_eq!(attempts, (3..=12).collect::<Vec<i64>>());

    let large = "x".repeat(30 * 1024);
    for _ in 0..4 {
        let claimed = fixture.claim_one("q").await;
        let error = json!({"error": {"type": "e", "message": "m", "details": large}, "retry_in_ms": 0});
        fixture.http.post("/fail", &report_with(&claimed, error)).await.expect(200);
    }
    let kept = fixture.task(&id).await["errors"].clone();
    let attempts: Vec<i64> = kept.as_array().unwrap().iter().map(|error| error["attempt"].as_i64().unwrap()).collect();
    assert_eq!(attempts, [15, 16]);
    fixture.end().await;
}

#[tokio::test]
async fn retry_keeps_the_errors_before_it() {
    let fixture = Fixture::start().await;
    let id = fixture.submit_with(json!({"queue": "q", "max_attempts": 3})).await["id"].clone();
    for round in 0..4 {
        for n in 1..=3 {
            let claimed = fixture.claim_one("q").await;
            let error = json!({"error": {"message": format!("{round}.{n}")}, "retry_in_ms": 0});
            fixture.http.post("/fail", &report_with(&claimed, error)).await.expect(200);
        }
        fixture.http.post_nothing(&format!("/tasks/{}/retry", text(&id))).await.expect(200);
    }
    let kept = fixture.task(&id).await["errors"].clone();
    let shown = |name: &str| -> Vec<Value> { kept.as_array().unwrap().iter().map(|one| one[name].clone()).collect() };
    let messages = ["0.3", "1.1", "1.2", "1.3", "2.1", "2.2", "2.3", "3.1", "3.2", "3.3"];
    assert_eq!(shown("message"), messages);
    assert_eq!(shown("attempt"), [3, 1, 2, 3, 1, 2, 3, 1, 2, 3]);
    fixture.end().await;
}

#[tokio::test]
async fn released_task_is_next_in_its_slot_and_counts_no_attempt() {
    let fixture = Fixture::with_shards(1).await;
    let id = fixture.submit("q", json!(1)).await["id"].clone();
    fixture.submit("q", json!(2)).await;
    let claimed = fixture.claim_one("q").await;

    let body = report(&claimed);
    let first = fixture.http.post("/release", &body).await.expect(200);

    assert_eq!(first, json!({"id": id, "state": "ready", "run_at": null, "adjusted": []}));
    assert_eq!(fixture.http.post("/release", &body).await.expect(200), first);
    let again = fixture.claim_one("q").await;
    assert_eq!((&again["id"], &again["attempt"]), (&id, &json!(1)));
    assert_eq!(fixture.task(&id).await["acquired"], 2);
    fixture.end().await;
}

#[tokio::test]
async fn task_can_be_released_with_a_delay() {
    let fixture = Fixture::start().await;
    fixture.submit("q", json!(1)).await;
    let claimed = fixture.claim_one("q").await;
    let body = report_with(&claimed, json!({"delay_ms": 5000}));
    assert_eq!(fixture.http.post("/release", &body).await.expect(200)["state"], "scheduled");
    assert!(fixture.claim_now("q", 1).await.is_empty());
    fixture.advance(5000);
    assert_eq!(fixture.claim_one("q").await["attempt"], 1);
    fixture.end().await;
}

#[tokio::test]
async fn token_is_known_until_the_next_lease_ends() {
    let fixture = Fixture::start().await;
    fixture.submit("q", json!(1)).await;
    let first = fixture.claim_one("q").await;
    fixture.http.post("/release", &report(&first)).await.expect(200);
    let second = fixture.claim_one("q").await;
    // The second lease is live, and the reply of the first is still known.
    fixture.http.post("/release", &report(&first)).await.expect(200);
    fixture.http.post("/complete", &report(&second)).await.expect(200);
    assert_eq!(fixture.http.post("/release", &report(&first)).await.problem(409).0, "lease_lost");
    fixture.end().await;
}
