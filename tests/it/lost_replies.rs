//! A reply lost after its script ran changes no client's result.

use deadpool_redis::redis::cmd;
use serde_json::{Value, json};
use slotwheel::domain::state::State;
use slotwheel::store::layout::queue::Field;
use slotwheel::store::ops::claim::ClaimCall;
use slotwheel::store::ops::resolve_hand_offs::resolve_hand_offs;
use slotwheel::store::views::ended::{EndedList, oldest_ended};
use slotwheel::store::{Caller, audit};

use crate::support::event_stream::Stream;
use crate::support::proxy::Proxy;
use crate::support::records::raise;
use crate::support::redis::{Flavour, OwnRedis};
use crate::support::script_lab::{queue, want};
use crate::support::{Fixture, report, report_with, text};

/// Replies to every kind of request in a task's life, without ids, tokens and times.
async fn life(fixture: &Fixture) -> Vec<Value> {
    let mut seen = Vec::new();
    let mut note = |status: u16, mut body: Value| {
        for name in [
            "id",
            "lease",
            "lease_until",
            "created_at",
            "finished_at",
            "run_at",
            "expires_at",
            "errors",
            "type",
            "request_id",
            "oldest_ready_age_ms",
        ] {
            scrub(&mut body, name);
        }
        seen.push(json!([status, body]));
    };
    macro_rules! post {
        ($path:expr, $body:expr) => {{
            let answer = fixture.http.post(&$path, &$body).await;
            note(answer.status, answer.json());
            answer.json()
        }};
    }
    for n in 0..6 {
        post!(
            "/tasks",
            json!({"queue": "q", "payload": n, "expires_in_ms": 3_600_000, "dedupe": {"key": format!("{n}")}})
        );
    }
    let delayed = post!("/tasks", json!({"queue": "q", "payload": 9, "delay_ms": 1_800_000}));
    let answer = fixture.http.post_with("/tasks", &[("idempotency-key", "k")], br#"{"queue":"other"}"#).await;
    note(answer.status, answer.json());
    let refused = br#"{"queue":"other","run_at":"9000-01-01T00:00:00Z"}"#;
    let answer = fixture.http.post_with("/tasks", &[("idempotency-key", "refused")], refused).await;
    note(answer.status, answer.json());
    let mut held = Vec::new();
    for _ in 0..5 {
        let tasks = post!("/claim", json!({"queues": ["q"], "worker": "w", "wait_ms": 5000}));
        held.push(tasks["tasks"][0].clone());
    }
    post!("/heartbeat", json!({"tasks": [report_with(&held[0], json!({"progress": 1}))]}));
    // The sixth task comes with the completion.
    post!("/complete", report_with(&held[0], json!({"result": 1, "claim": {"queues": ["q"], "worker": "w"}})));
    post!("/complete", report(&held[4]));
    post!("/fail", report_with(&held[1], json!({"error": {"type": "e", "message": "m"}, "retry": false})));
    post!("/release", report(&held[2]));
    post!(format!("/tasks/{}/cancel", text(&held[2]["id"])), json!({}));
    post!(format!("/tasks/{}/retry", text(&held[1]["id"])), json!({}));
    post!(format!("/tasks/{}/cancel", text(&held[3]["id"])), json!({}));
    for task in [&held[0], &held[4]] {
        let answer = fixture.http.delete(&format!("/tasks/{}", text(&task["id"]))).await;
        note(answer.status, answer.json());
    }
    let held = post!("/claim", json!({"queues": ["q"], "worker": "w"}))["tasks"][0].clone();
    post!(format!("/tasks/{}/release", text(&held["id"])), json!({"acquired": 2, "delay_ms": 1_000}));
    post!(format!("/tasks/{}/run", text(&held["id"])), json!({}));
    post!("/queues/q/pause", json!({}));
    post!("/queues/q/resume", json!({}));
    post!("/queues/unused/pause", json!({}));
    for queue in ["unused", "q"] {
        let answer = fixture.http.delete(&format!("/queues/{queue}")).await;
        note(answer.status, answer.json());
    }
    let path = format!("/tasks/{}?wait_ms=20", text(&delayed["id"]));
    let answer = fixture.http.get(&path).await;
    note(answer.status, answer.json());
    post!("/queues/q/purge", json!({"states": ["cancelled"]}));
    fixture.advance(1_800_000);
    fixture.until_state(&delayed["id"], "ready").await;
    fixture.advance(1_900_000);
    // All but the delayed task have a deadline that has passed: leases expire, and waiting tasks too.
    let settled = |counts: &Value| counts["leased"] == 0 && counts["scheduled"] == 0 && counts["ready"] == 1;
    let counts = fixture
        .until(|| async {
            let counts = fixture.counts("q").await;
            settled(&counts).then_some(counts)
        })
        .await;
    note(200, counts);
    seen
}

fn scrub(value: &mut Value, name: &str) {
    match value {
        Value::Array(items) => items.iter_mut().for_each(|item| scrub(item, name)),
        Value::Object(fields) => {
            fields.remove(name);
            fields.values_mut().for_each(|field| scrub(field, name));
        }
        _ => {}
    }
}

#[tokio::test]
async fn lost_first_reply_of_every_script_changes_no_result() {
    if Flavour::of_this_run() == Flavour::Cluster {
        // A Cluster client connects to the address that the node announces, past any proxy.
        return;
    }
    let plain = Fixture::with_shards(1).await;
    let wanted = life(&plain).await;
    plain.end().await;

    let redis = OwnRedis::start().await;
    let proxy = Proxy::losing_first_replies(redis.url.trim_start_matches("unix://").to_owned()).await;
    let lossy = Fixture::on(redis, proxy.url.clone(), |_| {}).await;
    let seen = life(&lossy).await;

    assert_eq!(seen.len(), wanted.len());
    for (seen, wanted) in seen.iter().zip(&wanted) {
        assert_eq!(seen, wanted);
    }
    lossy.http.get("/stats").await.expect(200);
    Stream::open(&lossy.http, "").await;
    // Scripts that no request calls: those of the doctor.
    let store = lossy.store_at(&proxy.url).await;
    raise(&lossy.redis, &store.shards()[0].keys.callers(), "shard", Field::ready, 1).await;
    let left = audit::repair(&store, |_| {}).await.expect("a repair");
    assert!(left.findings.is_empty(), "{:?}", left.findings);
    // Only a submit that failed with a waiting claim is resolved.
    assert!(resolve_hand_offs(store.first_shard(), &Caller::new()).await.expect("a reply").is_empty());
    // A list is read from its start when memory is short.
    let list = [EndedList { oldest: 0, queue: queue("q"), state: State::Completed }];
    oldest_ended(store.first_shard(), &list, i64::MAX, 1).await.expect("a page");
    lossy.http.get("/tasks?queue=q&state=ready").await.expect(200);
    // An outage since 1970.
    let callers = store.first_shard().keys.callers();
    lossy.redis.ask::<()>(cmd("HSET").arg(callers).arg("clock").arg("1")).await;
    // Every script loses its first reply, also the one that a server calls each second to record workers.
    lossy.until(|| async { (proxy.losses() == slotwheel::store::ops::ALL.len()).then_some(()) }).await;
    lossy.end().await;
}

#[tokio::test]
async fn delayed_call_does_not_run_after_a_later_call() {
    let fixture = Fixture::with_shards(1).await;
    for n in 0..2 {
        fixture.submit("q", json!(n)).await;
    }
    let store = fixture.store().await;
    let (shard, mut caller) = (&store.shards()[0], Caller::new());
    let (queues, wants) = ([queue("q")], [want(1, None, 1)]);
    let slow = ClaimCall::new(shard, &mut caller, &queues, &wants);
    let later = ClaimCall::new(shard, &mut caller, &queues, &wants);
    assert_eq!(later.send().await.expect("a task").tasks.len(), 1);

    let refused = slow.send().await.expect_err("its caller has gone on").to_string();

    assert!(refused.contains("OVERTAKEN"), "{refused}");
    assert_eq!(fixture.counts("q").await["leased"], 1);
    fixture.end().await;
}

#[tokio::test]
async fn script_flush_changes_no_result() {
    let fixture = Fixture::start().await;
    for n in 0..10 {
        fixture.redis.ask::<()>(cmd("SCRIPT").arg("FLUSH")).await;
        fixture.submit("q", json!(n)).await;
        fixture.redis.ask::<()>(cmd("SCRIPT").arg("FLUSH")).await;
        let claimed = fixture.claim_one("q").await;
        fixture.redis.ask::<()>(cmd("SCRIPT").arg("FLUSH")).await;
        fixture.http.post("/complete", &report(&claimed)).await.expect(200);
    }
    fixture.end().await;
}

#[tokio::test]
async fn killed_redis_is_used_again_after_its_restart() {
    if Flavour::of_this_run() == Flavour::Cluster {
        return;
    }
    let mut fixture = Fixture::start().await;
    let id = fixture.submit("q", json!(1)).await["id"].clone();
    fixture.redis.kill();
    let refused = fixture.http.post("/tasks", &json!({"queue": "q"})).await;
    assert_eq!(refused.problem(503).0, "unavailable");
    assert!(refused.header("retry-after").is_some());
    fixture.redis.restart().await;
    fixture.until(|| async { fixture.http.is_ready().await.then_some(()) }).await;
    assert_eq!(fixture.claim_one("q").await["id"], id);
    fixture.end().await;
}

#[tokio::test]
async fn abandoned_claim_that_ran_all_the_same_is_released() {
    let fixture = Fixture::start().await;
    let id = fixture.submit_with(json!({"queue": "q", "max_attempts": 1})).await["id"].clone();
    fixture.redis.freeze();
    let refused = fixture.http.post("/claim", &json!({"queues": ["q"]})).await;
    assert_eq!(refused.problem(503).0, "unavailable");
    fixture.redis.thaw();
    fixture.until(|| async { fixture.http.is_ready().await.then_some(()) }).await;
    let claimed = fixture
        .until(|| async {
            let answer = fixture.http.post("/claim", &json!({"queues": ["q"], "wait_ms": 1000})).await;
            answer.json()["tasks"].get(0).cloned()
        })
        .await;
    assert_eq!((&claimed["id"], &claimed["attempt"]), (&id, &json!(1)));
    fixture.end().await;
}
