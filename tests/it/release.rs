//! Releases: the task keeps its place in its slot, the slot has had its turn, and no attempt is counted.

use serde_json::{Value, json};
use slotwheel::domain::task::{ClaimedTask, NewTask};
use slotwheel::store::Caller;
use slotwheel::store::ops::LeaseRef;
use slotwheel::store::ops::release::{Release, Releaser, release};

use crate::support::script_lab::{Lab, id, task, want};
use crate::support::{Fixture, report, report_with, text};

/// Claims one task of `q`, and releases it.
async fn claim_and_release(fixture: &Fixture) -> Value {
    let claimed = fixture.claim_one("q").await;
    fixture.http.post("/release", &report(&claimed)).await.expect(200);
    claimed["payload"].clone()
}

#[tokio::test]
async fn released_slot_comes_behind_those_that_had_no_turn() {
    let fixture = Fixture::with_shards(1).await;
    fixture.submit_with(json!({"queue": "q", "key": "a", "payload": "a"})).await;
    for n in 0..10 {
        fixture.submit_with(json!({"queue": "q", "key": format!("k{n}"), "payload": n})).await;
    }
    let mut got = Vec::new();
    for _ in 0..11 {
        got.push(claim_and_release(&fixture).await);
    }
    let wanted: Vec<Value> = std::iter::once(json!("a")).chain((0..10).map(Value::from)).collect();
    assert_eq!(got, wanted);
    // The second round is in the same order, so no slot is ever passed over.
    for wanted in wanted {
        assert_eq!(claim_and_release(&fixture).await, wanted);
    }
    fixture.end().await;
}

#[tokio::test]
async fn task_released_at_once_leaves_other_keys_their_turns() {
    for shards in [1, 16] {
        let fixture = Fixture::with_shards(shards).await;
        fixture.submit_with(json!({"queue": "q", "key": "a", "payload": "a"})).await;
        for n in 0..10 {
            fixture.submit_with(json!({"queue": "q", "key": format!("k{n}"), "payload": n})).await;
        }
        let mut completed = 0;
        for _ in 0..100 {
            let claimed = fixture.claim_one("q").await;
            let path = if claimed["payload"] == "a" { "/release" } else { "/complete" };
            completed += u32::from(path == "/complete");
            fixture.http.post(path, &report(&claimed)).await.expect(200);
        }
        assert_eq!(completed, 10, "{shards} shards");
        fixture.end().await;
    }
}

#[tokio::test]
async fn released_task_is_claimed_before_later_tasks_of_its_slot() {
    let fixture = Fixture::with_shards(1).await;
    for n in 0..3 {
        fixture.submit_with(json!({"queue": "q", "key": "a", "payload": n})).await;
    }
    fixture.submit_with(json!({"queue": "q", "key": "b", "payload": "b"})).await;
    let held = fixture.claim_now("q", 1).await;
    fixture.http.post("/release", &report(&held[0])).await.expect(200);
    let got: Vec<Value> = fixture.claim_now("q", 4).await.iter().map(|task| task["payload"].clone()).collect();
    assert_eq!(got, [json!("b"), json!(0), json!(1), json!(2)]);
    fixture.end().await;
}

#[tokio::test]
async fn slot_without_its_turn_comes_before_every_return_to_the_wheel() {
    let fixture = Fixture::with_shards(1).await;
    let key = |key: &str| json!({"queue": "q", "key": key, "payload": key, "backoff": {"kind": "fixed", "base_ms": 0}});
    for name in ["failed", "expired", "released"] {
        fixture.submit_with(key(name)).await;
    }
    let held = fixture.claim_now("q", 3).await;
    let scheduled = json!({"queue": "q", "key": "scheduled", "payload": "scheduled", "delay_ms": 1000});
    fixture.submit_with(scheduled).await;
    let dead = fixture.submit_with(key("retried")).await["id"].clone();
    fixture.http.post_nothing(&format!("/tasks/{}/cancel", text(&dead))).await.expect(200);
    fixture.submit_with(key("waiting")).await;
    fixture.http.post_nothing("/queues/q/pause").await.expect(200);

    let failure = json!({"error": {"message": "m"}, "retry_in_ms": 0});
    fixture.http.post("/fail", &report_with(&held[0], failure)).await.expect(200);
    fixture.http.post("/release", &report(&held[2])).await.expect(200);
    fixture.http.post_nothing(&format!("/tasks/{}/retry", text(&dead))).await.expect(200);
    fixture.advance(60_001);
    fixture.until(|| async { (fixture.counts("q").await["ready"] == 6).then_some(()) }).await;
    fixture.http.post_nothing("/queues/q/resume").await.expect(200);

    assert_eq!(fixture.claim_one("q").await["payload"], "waiting");
    fixture.end().await;
}

#[tokio::test]
async fn task_released_after_its_last_delivery_is_dead() {
    let fixture = Fixture::start().await;
    let id = fixture.submit_with(json!({"queue": "q", "max_acquired": 2})).await["id"].clone();
    claim_and_release(&fixture).await;
    let claimed = fixture.claim_one("q").await;
    let body = report_with(&claimed, json!({"delay_ms": 5000}));

    let answer = fixture.http.post("/release", &body).await.expect(200);

    assert_eq!(answer, json!({"id": id, "state": "dead", "run_at": null, "adjusted": []}));
    assert_eq!(fixture.http.post("/release", &body).await.expect(200), answer);
    let task = fixture.task(&id).await;
    assert_eq!((&task["attempts"], &task["acquired"], &task["max_acquired"]), (&json!(0), &json!(2), &json!(2)));
    let error = &task["errors"][0];
    assert_eq!((&error["type"], &error["worker"], &error["attempt"]), (&json!("max_acquired"), &json!("w"), &json!(1)));
    assert_eq!(error["message"], "the worker released the task, which had been delivered max_acquired times");
    assert_eq!(fixture.counts("q").await["dead"], 1);
    fixture.end().await;
}

#[tokio::test]
async fn error_of_a_last_release_has_any_name_of_a_worker() {
    let fixture = Fixture::start().await;
    let id = fixture.submit_with(json!({"queue": "q", "max_acquired": 1})).await["id"].clone();
    let worker = "\"w\\ /\u{7f}\n\u{1f600}";
    let body = json!({"queues": ["q"], "worker": worker});
    let claimed = fixture.http.post("/claim", &body).await.expect(200)["tasks"][0].clone();
    fixture.http.post("/release", &report(&claimed)).await.expect(200);
    assert_eq!(fixture.task(&id).await["errors"][0]["worker"], worker);
    fixture.end().await;
}

#[tokio::test]
async fn max_acquired_of_zero_is_unlimited_and_its_default_is_a_thousand() {
    let fixture = Fixture::start().await;
    let unlimited = fixture.submit_with(json!({"queue": "q", "max_acquired": 0})).await;
    assert_eq!(unlimited["max_acquired"], 0);
    for _ in 0..3 {
        claim_and_release(&fixture).await;
    }
    assert_eq!(fixture.task(&unlimited["id"]).await["state"], "ready");
    assert_eq!(fixture.submit("r", json!(1)).await["max_acquired"], 1000);
    let refused = fixture.http.post("/tasks", &json!({"queue": "q", "max_acquired": -1})).await;
    assert_eq!(refused.problem(422).0, "out_of_range");
    fixture.end().await;
}

#[tokio::test]
async fn cancel_request_wins_over_max_acquired() {
    let fixture = Fixture::start().await;
    let id = fixture.submit_with(json!({"queue": "q", "max_acquired": 1})).await["id"].clone();
    let claimed = fixture.claim_one("q").await;
    fixture.http.post_nothing(&format!("/tasks/{}/cancel", text(&id))).await.expect(200);
    assert_eq!(fixture.http.post("/release", &report(&claimed)).await.expect(200)["state"], "cancelled");
    assert_eq!(fixture.task(&id).await["errors"], json!([]));
    fixture.end().await;
}

#[tokio::test]
async fn retry_permits_max_acquired_deliveries_again() {
    let fixture = Fixture::start().await;
    let id = fixture.submit_with(json!({"queue": "q", "max_acquired": 2})).await["id"].clone();
    for state in ["ready", "dead", "ready", "dead"] {
        claim_and_release(&fixture).await;
        assert_eq!(fixture.task(&id).await["state"], state);
        if state == "dead" {
            fixture.http.post_nothing(&format!("/tasks/{}/retry", text(&id))).await.expect(200);
        }
    }
    let task = fixture.task(&id).await;
    assert_eq!((&task["acquired"], task["errors"].as_array().unwrap().len()), (&json!(4), 2));
    fixture.end().await;
}

/// Claims tasks of a lab, and returns their numbers: those of [`task`].
async fn claimed(lab: &Lab, max: usize) -> Vec<ClaimedTask> {
    lab.claim(&["q"], &[want(max, None, 1)]).await.expect("tasks")
}

fn numbers(tasks: &[ClaimedTask]) -> Vec<u16> {
    let numbers = tasks.iter().map(|task| (0..100).find(|n| id(*n) == task.id).expect("a task of the lab"));
    numbers.collect()
}

async fn undelivered(lab: &Lab, tasks: &[ClaimedTask]) {
    let releases = tasks.iter().rev().map(|task| Release {
        lease_ref: LeaseRef { id: task.id, lease: Some(task.lease) },
        by: Releaser::Undelivered,
        delay_ms: 0,
    });
    release(lab.shard(), &mut Caller::new(), &releases.collect::<Vec<_>>()).await.expect("a release");
}

#[tokio::test]
async fn undelivered_tasks_are_claimed_again_in_the_same_order() {
    let lab = Lab::start().await;
    // Slot 1 has two tasks and stays on the wheel; slots 2 and 3 leave it. Slot 4 is behind them.
    lab.submit(&[task(11), task(21), task(31), task(41), task(12), task(13)]).await.expect("tasks");
    let first = claimed(&lab, 3).await;
    assert_eq!(numbers(&first), [11, 21, 31]);
    undelivered(&lab, &first).await;
    // One call for each task.
    let again = claimed(&lab, 5).await;
    assert_eq!(numbers(&again), [11, 21, 31, 41, 12]);
    for task in again.iter().rev() {
        undelivered(&lab, std::slice::from_ref(task)).await;
    }
    assert_eq!(numbers(&claimed(&lab, 6).await), [11, 21, 31, 41, 12, 13]);
    lab.end().await;
}

#[tokio::test]
async fn undelivered_task_does_not_end_and_its_delivery_does_not_count() {
    let lab = Lab::start().await;
    lab.submit(&[NewTask { max_acquired: 2, ..task(11) }]).await.expect("a task");
    for _ in 0..3 {
        let tasks = claimed(&lab, 1).await;
        assert_eq!(tasks.len(), 1);
        undelivered(&lab, &tasks).await;
    }
    for _ in 0..2 {
        let held = claimed(&lab, 1).await;
        assert_eq!(held.len(), 1, "two deliveries are permitted");
        let own = Release {
            lease_ref: LeaseRef { id: held[0].id, lease: Some(held[0].lease) },
            by: Releaser::Worker,
            delay_ms: 0,
        };
        release(lab.shard(), &mut Caller::new(), &[own]).await.expect("a release");
    }
    assert_eq!(claimed(&lab, 1).await.len(), 0);
    lab.end().await;
}

#[tokio::test]
async fn lease_is_ended_without_its_token() {
    let fixture = Fixture::with_shards(1).await;
    let id = fixture.submit_with(json!({"queue": "q", "key": "a", "max_acquired": 1})).await["id"].clone();
    fixture.submit_with(json!({"queue": "q", "key": "b", "payload": "b"})).await;
    let claimed = fixture.claim_one("q").await;
    let path = format!("/tasks/{}/release", text(&id));

    let released = fixture.http.post_nothing(&path).await.expect(200);

    assert_eq!((&released["state"], &released["attempts"]), (&json!("ready"), &json!(0)));
    assert_eq!(fixture.http.post_nothing(&path).await.expect(200), released, "the same call again");
    for (report_path, more) in
        [("/complete", json!({})), ("/release", json!({})), ("/fail", json!({"error": {"message": "m"}}))]
    {
        let answer = fixture.http.post(report_path, &report_with(&claimed, more)).await;
        assert_eq!(answer.problem(409).0, "lease_lost", "{report_path}");
    }
    let beaten = fixture.http.post("/heartbeat", &json!({"tasks": [report(&claimed)]})).await.expect(200);
    assert_eq!(beaten["tasks"][0]["problem"]["code"], "lease_lost");
    // The slot has had its turn.
    assert_eq!(fixture.claim_one("q").await["payload"], "b");
    assert_eq!(fixture.claim_one("q").await["id"], id);
    fixture.end().await;
}

#[tokio::test]
async fn lease_of_another_delivery_is_not_ended() {
    let fixture = Fixture::start().await;
    let id = fixture.submit("q", json!(1)).await["id"].clone();
    let path = format!("/tasks/{}/release", text(&id));
    let refused = |answer: crate::support::Answer, state: &str| {
        assert_eq!(answer.problem(409).0, "not_leased");
        assert_eq!(answer.json()["state"], state);
    };
    refused(fixture.http.post_nothing(&path).await, "ready");
    fixture.claim_one("q").await;
    let first = json!({"acquired": 1, "delay_ms": 1000});
    let released = fixture.http.post(&path, &first).await.expect(200);
    assert_eq!(released["state"], "scheduled");
    assert_eq!(fixture.http.post(&path, &first).await.expect(200), released);
    fixture.advance(1000);
    let again = fixture.claim_one("q").await;
    // The first call, repeated late, does not end the second lease.
    refused(fixture.http.post(&path, &first).await, "leased");
    fixture.http.post("/complete", &report(&again)).await.expect(200);
    refused(fixture.http.post_nothing(&path).await, "completed");
    let missing = format!("/tasks/{}/release", uuid::Uuid::now_v7());
    assert_eq!(fixture.http.post_nothing(&missing).await.problem(404).0, "task_not_found");
    for (body, code) in [(json!({"delay_ms": -1}), "out_of_range"), (json!({"lease": "x"}), "unknown_field")] {
        assert_eq!(fixture.http.post(&path, &body).await.problem(422).0, code);
    }
    fixture.end().await;
}

#[tokio::test]
async fn expired_lease_is_not_ended_by_a_client() {
    let fixture = Fixture::start().await;
    let id = fixture.submit_with(json!({"queue": "q", "max_attempts": 1})).await["id"].clone();
    fixture.claim_one("q").await;
    fixture.advance(60_001);
    let path = format!("/tasks/{}/release", text(&id));
    assert_eq!(fixture.http.post_nothing(&path).await.problem(409).0, "not_leased");
    fixture.until_state(&id, "dead").await;
    fixture.end().await;
}

#[tokio::test]
async fn cancel_request_wins_over_a_release_by_a_client() {
    let fixture = Fixture::start().await;
    let id = fixture.submit("q", json!(1)).await["id"].clone();
    fixture.claim_one("q").await;
    fixture.http.post_nothing(&format!("/tasks/{}/cancel", text(&id))).await.expect(200);
    let path = format!("/tasks/{}/release", text(&id));
    let ended = fixture.http.post_nothing(&path).await.expect(200);
    assert_eq!(ended["state"], "cancelled");
    assert_eq!(fixture.http.post_nothing(&path).await.expect(200), ended);
    let metrics = fixture.http.get("/metrics").await.text;
    assert!(metrics.contains("slotwheel_transitions_total{transition=\"revoked\"} 1\n"), "counted once");
    assert!(metrics.contains("slotwheel_transitions_total{transition=\"cancelled\"} 1\n"), "counted once");
    fixture.end().await;
}
