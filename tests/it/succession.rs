//! A task that waits for the end of the task that holds its dedupe key: submitted with mode `after`, or while that task is
//! leased.

use deadpool_redis::redis::cmd;
use serde_json::{Value, json};
use slotwheel::domain::id::TaskId;
use slotwheel::domain::state::State;
use slotwheel::store::Caller;
use slotwheel::store::ops::cancel::cancel;
use slotwheel::store::ops::delete::{DeleteReason, delete};

use crate::support::{Answer, Fixture, report, report_with, text};

fn body(mode: &str, payload: i64, more: Value) -> Value {
    let mut body = json!({"queue": "q", "payload": payload, "dedupe": {"key": "d", "mode": mode}});
    body.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
    body
}

async fn submit(fixture: &Fixture, mode: &str, payload: i64, more: Value) -> Answer {
    fixture.http.post("/tasks", &body(mode, payload, more)).await
}

/// A task that is leased, and one that waits for its end.
async fn pair(fixture: &Fixture, mode: &str, more: Value) -> (Value, Value) {
    submit(fixture, "keep", 1, json!({})).await.expect(201);
    let claimed = fixture.claim_one("q").await;
    let successor = submit(fixture, mode, 2, more).await.expect(201);
    assert_eq!((&successor["state"], &successor["run_at"]), (&json!("scheduled"), &Value::Null));
    assert_eq!(successor["after"], claimed["id"]);
    assert!(fixture.claim_now("q", 10).await.is_empty());
    (claimed, successor)
}

async fn cancel_task(fixture: &Fixture, id: &Value) -> Value {
    fixture.http.post_nothing(&format!("/tasks/{}/cancel", text(id))).await.expect(200)
}

async fn retry(fixture: &Fixture, id: &Value) -> Answer {
    fixture.http.post_nothing(&format!("/tasks/{}/retry", text(id))).await
}

async fn complete(fixture: &Fixture, claimed: &Value) {
    fixture.http.post("/complete", &report(claimed)).await.expect(200);
}

/// Claims and completes the successor, which is the only task to run.
async fn run_only(fixture: &Fixture, payload: i64) {
    let claimed = fixture.claim_one("q").await;
    assert_eq!((&claimed["payload"], &claimed["attempt"]), (&json!(payload), &json!(1)));
    complete(fixture, &claimed).await;
    // A task that has expired waits until upkeep has ended it.
    let is_empty = |counts: &Value| ["scheduled", "ready", "leased"].iter().all(|state| counts[state] == 0);
    fixture.until(|| async { is_empty(&fixture.counts("q").await).then_some(()) }).await;
}

fn id(task: &Value) -> TaskId {
    TaskId::parse(text(&task["id"])).unwrap()
}

#[tokio::test]
async fn submits_during_a_run_become_one_run_with_the_last_content() {
    let fixture = Fixture::start().await;
    for mode in ["after", "replace", "debounce"] {
        let (claimed, successor) = pair(&fixture, mode, json!({})).await;
        for payload in 3..6 {
            let same = submit(&fixture, mode, payload, json!({"priority": 7})).await.expect(200);
            assert_eq!((&same["id"], &same["after"]), (&successor["id"], &claimed["id"]));
        }
        assert_eq!(submit(&fixture, "keep", 9, json!({})).await.expect(200)["id"], successor["id"]);
        complete(&fixture, &claimed).await;
        run_only(&fixture, 5).await;
    }
    fixture.end().await;
}

#[tokio::test]
async fn replaced_content_does_not_run_again_however_its_lease_ends() {
    let fixture = Fixture::start().await;
    let failed = json!({"error": {"message": "m"}, "retry_in_ms": 0});
    for mode in ["replace", "debounce"] {
        for (path, more, ended) in [
            ("/complete", json!({}), "completed"),
            ("/fail", failed.clone(), "dead"),
            ("/release", json!({}), "cancelled"),
            ("", json!({}), "dead"),
        ] {
            let (claimed, _) = pair(&fixture, mode, json!({})).await;
            match path {
                "" => fixture.advance(61_000),
                path => {
                    assert_eq!(fixture.http.post(path, &report_with(&claimed, more)).await.expect(200)["state"], ended)
                }
            }
            fixture.until_state(&claimed["id"], ended).await;
            run_only(&fixture, 2).await;
        }
    }
    fixture.end().await;
}

#[tokio::test]
async fn successor_waits_for_the_retries_of_its_predecessor() {
    let fixture = Fixture::start().await;
    let (claimed, successor) = pair(&fixture, "after", json!({})).await;
    let failed = report_with(&claimed, json!({"error": {"message": "m"}, "retry_in_ms": 0}));
    assert_eq!(fixture.http.post("/fail", &failed).await.expect(200)["state"], "ready");
    let again = fixture.claim_now("q", 10).await;
    assert_eq!((again.len(), &again[0]["id"]), (1, &claimed["id"]));
    assert_eq!(fixture.task(&successor["id"]).await["after"], claimed["id"]);
    complete(&fixture, &again[0]).await;
    run_only(&fixture, 2).await;
    fixture.end().await;
}

#[tokio::test]
async fn successor_runs_however_a_waiting_predecessor_ends() {
    let fixture = Fixture::start().await;
    for end in ["cancel", "expire", "purge", "run"] {
        let more = if end == "expire" { json!({"expires_in_ms": 5000}) } else { json!({}) };
        let first = submit(&fixture, "after", 1, more).await.expect(201);
        let second = submit(&fixture, "after", 2, json!({"delay_ms": 600_000})).await.expect(201);
        assert_eq!(second["after"], first["id"]);
        match end {
            "cancel" => drop(cancel_task(&fixture, &first["id"]).await),
            "expire" => fixture.advance(5000),
            "purge" => drop(fixture.http.post("/queues/q/purge", &json!({"states": ["ready"]})).await.expect(200)),
            _ => complete(&fixture, &fixture.claim_one("q").await).await,
        }
        let scheduled = fixture
            .until(|| async { Some(fixture.task(&second["id"]).await).filter(|task| task["after"].is_null()) })
            .await;
        assert_eq!(scheduled["state"], "scheduled", "it has its own delay");
        assert_ne!(scheduled["run_at"], Value::Null);
        fixture.advance(600_000);
        run_only(&fixture, 2).await;
    }
    fixture.end().await;
}

#[tokio::test]
async fn keep_of_a_task_that_is_being_cancelled_runs_after_it() {
    let fixture = Fixture::start().await;
    submit(&fixture, "keep", 1, json!({})).await.expect(201);
    let claimed = fixture.claim_one("q").await;
    submit(&fixture, "keep", 2, json!({})).await.expect(200);
    cancel_task(&fixture, &claimed["id"]).await;
    assert_eq!(submit(&fixture, "keep", 2, json!({})).await.expect(201)["after"], claimed["id"]);
    assert_eq!(fixture.http.post("/release", &report(&claimed)).await.expect(200)["state"], "cancelled");
    run_only(&fixture, 2).await;
    fixture.end().await;
}

#[tokio::test]
async fn keep_of_a_task_whose_last_lease_has_run_out_runs_after_it() {
    let fixture = Fixture::with(|written| written.poll_interval_ms = Some(60_000)).await;
    submit(&fixture, "keep", 1, json!({"max_attempts": 1})).await.expect(201);
    let claimed = fixture.claim_one("q").await;
    submit(&fixture, "keep", 2, json!({})).await.expect(200);
    fixture.advance(61_000);
    assert_eq!(submit(&fixture, "keep", 2, json!({})).await.expect(201)["after"], claimed["id"]);
    fixture.end().await;
}

#[tokio::test]
async fn successor_that_ends_early_does_not_run_and_makes_place() {
    let fixture = Fixture::start().await;
    for (mode, left) in [("after", "ready"), ("replace", "ready")] {
        let (claimed, successor) = pair(&fixture, mode, json!({})).await;
        let ended = cancel_task(&fixture, &successor["id"]).await;
        assert_eq!(
            (&ended["state"], &ended["after"], &ended["run_at"]),
            (&json!("cancelled"), &Value::Null, &Value::Null)
        );
        assert_eq!(retry(&fixture, &successor["id"]).await.problem(409).0, "dedupe_conflict");
        let other = submit(&fixture, "after", 3, json!({"expires_in_ms": 5000})).await.expect(201);
        fixture.advance(5000);
        fixture.until_state(&other["id"], "expired").await;
        // Without a successor, the content was not replaced.
        assert_eq!(fixture.http.post("/release", &report(&claimed)).await.expect(200)["state"], left);
        run_only(&fixture, 1).await;
    }
    fixture.end().await;
}

#[tokio::test]
async fn predecessor_is_not_retried_while_its_successor_lives() {
    let fixture = Fixture::start().await;
    let (claimed, successor) = pair(&fixture, "replace", json!({})).await;
    fixture.http.post("/release", &report(&claimed)).await.expect(200);
    assert_eq!(retry(&fixture, &claimed["id"]).await.problem(409).0, "dedupe_conflict");
    fixture.until_state(&successor["id"], "ready").await;
    assert_eq!(retry(&fixture, &claimed["id"]).await.problem(409).0, "dedupe_conflict");
    run_only(&fixture, 2).await;
    retry(&fixture, &claimed["id"]).await.expect(200);
    run_only(&fixture, 1).await;
    fixture.end().await;
}

#[tokio::test]
async fn successor_takes_the_key_for_the_rest_of_its_window() {
    let fixture = Fixture::start().await;
    let windowed = json!({"dedupe": {"key": "d", "mode": "after", "window_ms": 20_000}});
    let (claimed, successor) = pair(&fixture, "after", windowed).await;
    fixture.advance(10_000);
    complete(&fixture, &claimed).await;
    assert_eq!(submit(&fixture, "keep", 3, json!({})).await.expect(200)["id"], successor["id"]);
    fixture.advance(10_000);
    submit(&fixture, "keep", 3, json!({})).await.expect(201);
    assert_eq!(
        fixture.until(|| async { Some(fixture.claim_now("q", 10).await).filter(|got| !got.is_empty()) }).await.len(),
        2
    );
    fixture.end().await;
}

#[tokio::test]
async fn task_past_its_expiry_leaves_its_key_to_its_successor() {
    for mode in ["keep", "replace", "debounce", "after"] {
        let fixture = Fixture::with(|written| written.poll_interval_ms = Some(60_000)).await;
        let first = submit(&fixture, "keep", 1, json!({"expires_in_ms": 1_000_000})).await.expect(201);
        let second = submit(&fixture, "after", 2, json!({})).await.expect(201);
        fixture.advance(1_000_001);
        let third = submit(&fixture, mode, 3, json!({})).await.json();
        assert_eq!(fixture.task(&first["id"]).await["state"], "expired");
        let (follows, after) = if mode == "after" { (true, second["id"].clone()) } else { (false, Value::Null) };
        assert_eq!((third["id"] != second["id"], &third["after"]), (follows, &after));
        let contents = match mode {
            "keep" => vec![2],
            "after" => vec![2, 3],
            _ => vec![3],
        };
        for content in contents {
            let claimed = fixture.claim_one("q").await;
            assert_eq!(claimed["payload"], content);
            complete(&fixture, &claimed).await;
        }
        fixture.end().await;
    }
}

#[tokio::test]
async fn successor_that_is_run_now_waits_for_its_predecessor_only() {
    let fixture = Fixture::start().await;
    let (claimed, successor) = pair(&fixture, "after", json!({"delay_ms": 600_000})).await;
    let path = format!("/tasks/{}/run", text(&successor["id"]));
    let task = fixture.http.post_nothing(&path).await.expect(200);
    assert_eq!((&task["state"], &task["after"]), (&json!("scheduled"), &claimed["id"]));
    complete(&fixture, &claimed).await;
    run_only(&fixture, 2).await;
    fixture.end().await;
}

#[tokio::test]
async fn replaced_task_that_would_expire_before_its_time_is_rejected() {
    let fixture = Fixture::start().await;
    submit(&fixture, "after", 1, json!({"delay_ms": 600_000})).await.expect(201);
    let late = json!({"expires_in_ms": 500_000});
    assert_eq!(submit(&fixture, "replace", 2, late.clone()).await.problem(422).0, "invalid_time");
    submit(&fixture, "after", 3, json!({"delay_ms": 600_000})).await.expect(201);
    assert_eq!(submit(&fixture, "replace", 4, late.clone()).await.problem(422).0, "invalid_time");
    submit(&fixture, "debounce", 5, late).await.expect(200);
    fixture.end().await;
}

#[tokio::test]
async fn pair_that_ends_in_one_call_leaves_no_key() {
    let fixture = Fixture::with_shards(1).await;
    let store = fixture.store().await;
    let shard = &store.shards()[0];
    for turned in [false, true] {
        for purged in [false, true] {
            let first = submit(&fixture, "keep", 1, json!({})).await.expect(201);
            let second = submit(&fixture, "after", 2, json!({})).await.expect(201);
            let mut ids = [id(&first), id(&second)];
            if turned {
                ids.reverse();
            }
            if purged {
                let reason = DeleteReason::Purge(vec![State::Ready, State::Scheduled]);
                delete(shard, &mut Caller::new(), &reason, &ids).await.unwrap();
            } else {
                cancel(shard, &mut Caller::new(), &ids).await.unwrap();
            }
            let keys: Vec<Vec<u8>> = fixture.redis.ask(cmd("KEYS").arg("*:dedupe:*")).await;
            assert!(keys.is_empty(), "turned: {turned}, purged: {purged}");
            submit(&fixture, "keep", 3, json!({})).await.expect(201);
            run_only(&fixture, 3).await;
        }
    }
    fixture.end().await;
}

#[tokio::test]
async fn report_for_a_successor_does_not_fail_that_for_its_predecessor() {
    let fixture = Fixture::with_shards(1).await;
    for turned in [false, true] {
        let (claimed, successor) = pair(&fixture, "after", json!({})).await;
        let mut items = vec![report(&claimed), json!({"id": successor["id"], "lease": claimed["lease"]})];
        if turned {
            items.reverse();
        }
        let answer = fixture.http.post("/complete/batch", &json!({"completions": items})).await.expect(200);
        let mut statuses = [&answer["results"][0]["status"], &answer["results"][1]["status"]];
        if turned {
            statuses.reverse();
        }
        assert_eq!(statuses, [&json!(200), &json!(409)]);
        run_only(&fixture, 2).await;
    }
    fixture.end().await;
}

#[tokio::test]
async fn repeated_submit_of_a_successor_is_answered_by_the_first() {
    let fixture = Fixture::start().await;
    let first = submit(&fixture, "keep", 1, json!({})).await.expect(201);
    let again = body("after", 2, json!({})).to_string();
    let send = || fixture.http.post_with("/tasks", &[("idempotency-key", "k")], again.as_bytes());
    let created = send().await.expect(201);
    assert_eq!(created["after"], first["id"]);
    assert_eq!(send().await.expect(201)["id"], created["id"]);
    complete(&fixture, &fixture.claim_one("q").await).await;
    run_only(&fixture, 2).await;
    assert_eq!(send().await.expect(201)["state"], "completed");
    fixture.end().await;
}
