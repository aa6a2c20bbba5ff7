//! Fairness: every key gets its turn, regardless of the backlog of another.

use std::collections::{BTreeMap, BTreeSet};

use futures_util::future::join_all;
use serde_json::{Value, json};
use slotwheel::domain::slot::{Shards, Slot};

use crate::support::{Fixture, text};

/// Ten keys in ten slots of one shard; the first has 10,000 tasks queued before the others have ten each.
async fn ten_keys() -> (Fixture, Vec<String>) {
    let fixture = Fixture::start().await;
    let shards =
        Shards::new(if fixture.config.shards.is_none_or(|shards| shards.count() == 1) { 1 } else { 16 }).unwrap();
    let mut slots = BTreeMap::new();
    for n in 0.. {
        let key = format!("key-{n}");
        let slot = Slot::of_key(key.as_bytes());
        if shards.shard_of(slot) == 0 {
            slots.entry(slot.number()).or_insert(key);
        }
        if slots.len() == 10 {
            break;
        }
    }
    let keys: Vec<String> = slots.into_values().collect();
    for _ in 0..10 {
        let tasks: Vec<Value> = (0..1000).map(|_| json!({"queue": "q", "key": keys[0]})).collect();
        fixture.http.post("/tasks/batch", &json!({"tasks": tasks})).await.expect(200);
    }
    let tasks: Vec<Value> = keys[1..]
        .iter()
        .flat_map(|key| (0..10).map(move |n| json!({"queue": "q", "key": key, "payload": n})))
        .collect();
    fixture.http.post("/tasks/batch", &json!({"tasks": tasks})).await.expect(200);
    (fixture, keys)
}

/// The ninety tasks are among the first 200 claimed, and in order within each key.
fn check(claimed: &[Value], keys: &[String]) {
    for key in &keys[1..] {
        let payloads: Vec<i64> = claimed
            .iter()
            .take(200)
            .filter(|task| text(&task["key"]) == key)
            .map(|task| task["payload"].as_i64().unwrap())
            .collect();
        assert_eq!(payloads.len(), 10, "{key}");
        let mut sorted = payloads.clone();
        sorted.sort_unstable();
        assert_eq!(sorted, (0..10).collect::<Vec<i64>>());
    }
}

#[tokio::test]
async fn slots_are_served_in_turn_one_task_at_a_time() {
    let (fixture, keys) = ten_keys().await;
    let mut claimed = Vec::new();
    while claimed.len() < 200 {
        claimed.extend(fixture.claim_now("q", 1).await);
    }
    check(&claimed, &keys);
    fixture.end().await;
}

#[tokio::test]
async fn slots_are_served_in_turn_a_hundred_at_a_time() {
    let (fixture, keys) = ten_keys().await;
    let mut claimed = Vec::new();
    while claimed.len() < 200 {
        claimed.extend(fixture.claim_now("q", 100).await);
    }
    check(&claimed, &keys);
    fixture.end().await;
}

#[tokio::test]
async fn slots_are_served_in_turn_for_64_waiters_of_one_call() {
    let (fixture, keys) = ten_keys().await;
    let mut claimed = Vec::new();
    while claimed.len() < 192 {
        let answers = join_all((0..64).map(|_| fixture.claim_now("q", 1))).await;
        claimed.extend(answers.into_iter().flatten());
    }
    check(&claimed, &keys);
    fixture.end().await;
}

#[tokio::test]
async fn task_without_a_key_gets_its_turn_beside_a_thousand_keys() {
    let fixture = Fixture::with_shards(1).await;
    for _ in 0..2 {
        let tasks: Vec<Value> = (0..1000).map(|n| json!({"queue": "q", "key": format!("key-{n}")})).collect();
        fixture.http.post("/tasks/batch", &json!({"tasks": tasks})).await.expect(200);
    }
    // Each key has a task when the turn of the plain task comes, and gets another one behind it.
    let slots: BTreeSet<u16> = (0..1000).map(|n| Slot::of_key(format!("key-{n}").as_bytes()).number()).collect();
    let plain = fixture.submit("q", json!("plain")).await["id"].clone();
    fixture.submit("q", json!("its second")).await;
    let mut claimed = Vec::new();
    while claimed.len() <= slots.len() {
        claimed.extend(fixture.claim_now("q", 100).await);
    }
    let place = claimed.iter().position(|task| task["id"] == plain).expect("a turn");
    assert!(place <= slots.len(), "place {place} of {} slots", slots.len());
    // The turn is that of one key: the second plain task waits for the next one.
    assert!(!claimed[..=slots.len()].iter().any(|task| task["payload"] == "its second"));
    fixture.end().await;
}

#[tokio::test]
async fn backlog_of_a_shard_leaves_other_shards_their_turns() {
    let fixture = Fixture::with_shards(16).await;
    let shards = Shards::new(16).unwrap();
    let key_in = |shard: usize| {
        let is_there = |key: &String| shards.shard_of(Slot::of_key(key.as_bytes())) == shard;
        (0..).map(|n| format!("key-{n}")).find(is_there).expect("a key")
    };
    let backlogs = [key_in(0), key_in(15)];
    let tasks = backlogs.iter().flat_map(|key| (0..100).map(move |_| json!({"queue": "q", "key": key})));
    fixture.http.post("/tasks/batch", &json!({"tasks": tasks.collect::<Vec<_>>()})).await.expect(200);
    fixture.submit_with(json!({"queue": "q", "key": key_in(7), "payload": "alone"})).await;
    let mut claimed = Vec::new();
    while claimed.len() < 100 {
        claimed.extend(fixture.claim_now("q", 1).await);
    }
    // By chance alone, a shard of three gets none of a hundred turns once in 10^17 runs.
    assert!(claimed.iter().any(|task| task["payload"] == "alone"));
    fixture.end().await;
}

#[tokio::test]
async fn served_slot_moves_to_the_rear() {
    let fixture = Fixture::with_shards(1).await;
    for key in ["a", "b"] {
        for n in 0..3 {
            fixture.submit_with(json!({"queue": "q", "key": key, "payload": format!("{key}{n}")})).await;
        }
    }
    let mut got = Vec::new();
    for max in [1, 2, 3] {
        got.extend(fixture.claim_now("q", max).await.iter().map(|task| text(&task["payload"]).to_owned()));
    }
    assert_eq!(got, ["a0", "b0", "a1", "b1", "a2", "b2"]);
    fixture.end().await;
}
