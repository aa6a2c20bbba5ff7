//! The list of workers: liveness, address, concurrency and held leases.

use std::time::Duration;

use serde_json::{Value, json};
use slotwheel::domain::id::TaskId;
use slotwheel::domain::worker::Worker;
use slotwheel::store::Caller;
use slotwheel::store::ops::record_workers::{WorkerSeen, record_workers};
use slotwheel::store::ops::sample_leases::sample_leases;
use slotwheel::store::views::next_due::next_due;
use slotwheel::store::views::workers::live_workers;

use crate::support::script_lab::Lab;
use crate::support::{Fixture, report, text};

async fn workers(fixture: &Fixture) -> Vec<Value> {
    fixture.http.get("/workers").await.expect(200)["workers"].as_array().expect("a list").clone()
}

/// Returns the workers once there are `number`.
async fn until_there_are(fixture: &Fixture, number: usize) -> Vec<Value> {
    fixture
        .until(|| async {
            let found = workers(fixture).await;
            (found.len() == number).then_some(found)
        })
        .await
}

#[tokio::test]
async fn worker_that_claims_is_listed_with_its_claim_and_its_leases() {
    let mut fixture = Fixture::start().await;
    let second = fixture.another_server().await;
    fixture.submit("q", json!(1)).await;
    let body = json!({"queues": ["q", "r"], "worker": "a", "concurrency": 3, "wait_ms": 10_000});
    let claimed = fixture.http.post("/claim", &body).await.expect(200);
    second.post("/claim", &json!({"queues": ["r"], "worker": "b"})).await.expect(200);

    let found = until_there_are(&fixture, 2).await;

    let (a, b) = (&found[0], &found[1]);
    assert_eq!((&a["worker"], &a["concurrency"], &a["effective_concurrency"]), (&json!("a"), &json!(3), &json!(3)));
    assert_eq!((&a["address"], &a["queues"], &a["held"]), (&json!("127.0.0.1"), &json!(["q", "r"]), &json!(1)));
    assert_eq!(a["tasks"][0]["id"], claimed["tasks"][0]["id"]);
    assert_eq!(a["tasks"][0]["lease_until"], claimed["tasks"][0]["lease_until"]);
    assert_eq!((&b["worker"], &b["effective_concurrency"], &b["held"]), (&json!("b"), &json!(1), &json!(0)));
    assert!(a["first_seen_at"].as_str() <= a["last_seen_at"].as_str());
    let stats = |queue: &'static str| fixture.http.get(queue);
    fixture.advance(6000);
    let concurrency_needed =
        [stats("/stats?queue=q").await.expect(200)["n"].clone(), stats("/stats").await.expect(200)["n"].clone()];
    assert_eq!(concurrency_needed, [json!(3), json!(4)]);
    fixture.end().await;
}

#[tokio::test]
async fn worker_unseen_for_30_s_is_listed_only_while_it_holds_leases() {
    let fixture = Fixture::start().await;
    for _ in 0..3 {
        fixture.submit("q", json!(1)).await;
    }
    let body = json!({"queues": ["q"], "worker": "holder", "lease_ms": 600_000});
    // One claim each, because a claim returns tasks of one shard.
    let mut held = Vec::new();
    for _ in 0..3 {
        let claimed = fixture.http.post("/claim", &body).await.expect(200);
        held.extend(claimed["tasks"].as_array().unwrap().iter().cloned());
    }
    fixture.http.post("/claim", &json!({"worker": "idle"})).await.expect(200);
    until_there_are(&fixture, 2).await;

    fixture.advance(31_000);

    // Held leases are sampled every 5 s.
    let found = fixture
        .until(|| async {
            let found = workers(&fixture).await;
            (found.len() == 1 && found[0]["effective_concurrency"] == 3).then_some(found)
        })
        .await;
    assert_eq!((&found[0]["worker"], &found[0]["held"]), (&json!("holder"), &json!(3)));
    assert_eq!((&found[0]["concurrency"], &found[0]["queues"]), (&json!(1), &json!(["q"])));
    for task in &held {
        fixture.http.post("/complete", &report(task)).await.expect(200);
    }
    fixture.advance(41_000);
    until_there_are(&fixture, 0).await;
    fixture.end().await;
}

#[tokio::test]
async fn heartbeat_at_another_server_keeps_what_the_claim_recorded() {
    let mut fixture = Fixture::start().await;
    let second = fixture.another_server().await;
    fixture.submit("q", json!(1)).await;
    let body = json!({"queues": ["q"], "worker": "a", "concurrency": 4, "lease_ms": 600_000, "wait_ms": 10_000});
    let claimed = fixture.http.post("/claim", &body).await.expect(200);
    until_there_are(&fixture, 1).await;
    // The claim is old when the other server first sees the worker.
    fixture.advance(100_000);
    let beat = json!({"worker": "a", "tasks": [report(&claimed["tasks"][0])]});
    let seen_at = workers(&fixture).await.first().map(|worker| worker["last_seen_at"].clone());
    second.post("/heartbeat", &beat).await.expect(200);

    let found = fixture
        .until(|| async {
            let found = workers(&fixture).await;
            (found.len() == 1 && Some(&found[0]["last_seen_at"]) != seen_at.as_ref()).then_some(found)
        })
        .await;

    assert_eq!((&found[0]["queues"], &found[0]["effective_concurrency"]), (&json!(["q"]), &json!(4)));
    fixture.advance(6000);
    assert_eq!(fixture.http.get("/stats?queue=q").await.expect(200)["n"], 4);
    fixture.end().await;
}

#[tokio::test]
async fn leases_of_several_shards_add_up_only_if_held_at_one_time() {
    let fixture = Fixture::with_shards(4).await;
    let store = fixture.store().await;
    let body = json!({"queues": ["q"], "worker": "w", "lease_ms": 600_000, "wait_ms": 10_000});
    let one_more = || async {
        fixture.submit("q", json!(1)).await;
        fixture.http.post("/claim", &body).await.expect(200)["tasks"][0].clone()
    };
    let shard_of = |task: &Value| store.shard_for_task(&TaskId::parse(text(&task["id"])).unwrap());
    // After the last sample of the server itself.
    fixture.advance(20_000);
    let first = one_more().await;
    let at = sample_leases(shard_of(&first), &mut Caller::new(), None).await.unwrap();
    fixture.http.post("/complete", &report(&first)).await.expect(200);
    let second = fixture
        .until(|| async {
            let next = one_more().await;
            if shard_of(&next).index != shard_of(&first).index {
                return Some(next);
            }
            fixture.http.post("/complete", &report(&next)).await.expect(200);
            None
        })
        .await;
    sample_leases(shard_of(&second), &mut Caller::new(), Some(at)).await.unwrap();

    let all = live_workers(&store, next_due(store.first_shard()).await.unwrap().now).await.unwrap();

    assert_eq!(all["w"].effective_concurrency, 1);
    fixture.end().await;
}

#[tokio::test]
async fn registry_beyond_its_limit_drops_the_least_recently_seen_workers() {
    let lab = Lab::start().await;
    let worker_seen = |name: usize| WorkerSeen {
        worker: Worker::unknown(&name.to_string()),
        seen_ago: Duration::ZERO,
        claimed_ago: None,
    };
    let names: Vec<usize> = (0..100_500).collect();
    for names in names.chunks(500) {
        let workers_seen: Vec<WorkerSeen> = names.iter().map(|name| worker_seen(*name)).collect();
        record_workers(lab.shard(), &mut Caller::new(), &workers_seen).await.unwrap();
        lab.at(1000 + names[0] as i64 / 50);
    }
    let now = next_due(lab.shard()).await.unwrap().now;
    let all = live_workers(&lab.store, now).await.unwrap();
    assert_eq!(all.len(), 100_000);
    assert!(!all.contains_key("0") && all.contains_key("500") && all.contains_key("100499"));
    lab.end().await;
}

#[tokio::test]
async fn worker_that_waits_or_sends_heartbeats_is_alive() {
    let fixture = Fixture::start().await;
    let claim = json!({"worker": "waits", "wait_ms": 60_000});
    let waiting = fixture.http.post("/claim", &claim);
    fixture.submit("q", json!(1)).await;
    let task = fixture.claim_one("q").await;
    let beat = json!({"worker": "beats", "tasks": [report(&task)]});
    let seen = async {
        fixture.http.post("/heartbeat", &beat).await.expect(200);
        let found = until_there_are(&fixture, 3).await;
        assert_eq!(found[0]["worker"], "beats");
        // A waiting worker sends nothing, and its server writes it every 10 s. `w` and `beats` hold the task.
        fixture.advance(31_000);
        let path = format!("/tasks/{}?wait_ms=500", text(&task["id"]));
        let waits = async || workers(&fixture).await.iter().any(|worker| worker["worker"] == "waits");
        assert!(!waits().await);
        fixture
            .until(|| async {
                fixture.http.get(&path).await.expect(200);
                waits().await.then_some(())
            })
            .await;
        fixture.submit("default", json!(1)).await;
    };
    let (claimed, ()) = tokio::join!(waiting, seen);
    assert_eq!(claimed.expect(200)["tasks"].as_array().unwrap().len(), 1);
    fixture.end().await;
}

#[tokio::test]
async fn held_tasks_are_ordered_by_lease_end_and_counted_only_if_all_are_seen() {
    let fixture = Fixture::with_shards(1).await;
    for (queue, lease_ms) in [("a", 300_000), ("b", 100_000), ("c", 200_000)] {
        fixture.submit(queue, json!(1)).await;
        let body = json!({"queues": [queue], "worker": "w", "lease_ms": lease_ms, "wait_ms": 10_000});
        fixture.http.post("/claim", &body).await.expect(200);
    }
    let found = until_there_are(&fixture, 1).await;
    let queues: Vec<&str> = found[0]["tasks"].as_array().unwrap().iter().map(|task| text(&task["queue"])).collect();
    assert_eq!((queues, &found[0]["held"]), (vec!["b", "c", "a"], &json!(3)));
    // A thousand queues with an earlier due time, and three.
    let later = |number: usize| json!({"queue": format!("later{number}"), "delay_ms": 50_000});
    let later: Vec<Value> = (0..1000).map(later).collect();
    fixture.http.post("/tasks/batch", &json!({"tasks": later})).await.expect(200);
    let found = workers(&fixture).await;
    assert_eq!(found[0]["held"], Value::Null);
    fixture.end().await;
}

#[tokio::test]
async fn workers_are_listed_by_page_with_any_name() {
    let fixture = Fixture::start().await;
    let names = ["a b&c", "b", "c/\u{e9}?", "d", "e"];
    for name in names {
        fixture.http.post("/claim", &json!({"worker": name})).await.expect(200);
    }
    until_there_are(&fixture, 5).await;
    let (mut path, mut found) = ("/workers?limit=2".to_owned(), Vec::new());
    loop {
        let answer = fixture.http.get(&path).await;
        let page = answer.expect(200);
        found.extend(page["workers"].as_array().unwrap().iter().map(|worker| worker["worker"].clone()));
        let Some(link) = answer.header("link") else { break };
        path = link.trim_start_matches('<').split('>').next().unwrap().to_owned();
    }
    assert_eq!(found, names);
    fixture.end().await;
}
