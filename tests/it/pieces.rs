//! Slot queues with more tasks than a piece: they are stored in pieces, and served in their order, whatever happens to the
//! tasks in their middle.

use std::collections::BTreeMap;

use deadpool_redis::redis::cmd;
use rand::rngs::StdRng;
use rand::{RngExt as _, SeedableRng as _};
use serde_json::{Value, json};
use slotwheel::domain::id::TaskId;
use slotwheel::domain::queue::QueueName;
use slotwheel::domain::slot::Slot;
use slotwheel::store::Caller;
use slotwheel::store::audit::{audit, repair};
use slotwheel::store::layout::PIECE;
use slotwheel::store::ops::retry::retry;

use crate::support::script_lab::{Lab, id, in_one_slot, want};
use crate::support::{Fixture, report, report_with, text};

/// Pieces that a test may make.
const PIECES: i64 = 256;

/// Submits tasks whose payloads are these numbers. Returns their ids.
async fn submit(fixture: &Fixture, numbers: std::ops::Range<u64>) -> Vec<String> {
    let tasks: Vec<Value> = numbers.map(|number| json!({"queue": "q", "payload": number})).collect();
    let answer = fixture.http.post("/tasks/batch", &json!({"tasks": tasks})).await.expect(200);
    answer["results"].as_array().unwrap().iter().map(|result| text(&result["task"]["id"]).to_owned()).collect()
}

/// Claims at most `max` tasks. Returns their payloads, and completes them.
async fn work(fixture: &Fixture, max: u32) -> Vec<u64> {
    let tasks = fixture.claim_now("q", max).await;
    let numbers = tasks.iter().map(|task| task["payload"].as_u64().unwrap()).collect();
    if !tasks.is_empty() {
        let completions: Vec<Value> = tasks.iter().map(report).collect();
        fixture.http.post("/complete/batch", &json!({"completions": completions})).await.expect(200);
    }
    numbers
}

/// The keys of the slot queue: its head, then its pieces.
async fn keys(fixture: &Fixture) -> Vec<Vec<u8>> {
    let keys = fixture.store().await.first_shard().keys.clone();
    let (queue, slot) = (QueueName::parse("q").unwrap(), Slot::of_key(b"q"));
    let pieces = (0..PIECES).map(|piece| keys.piece(&queue, 4, slot, piece));
    std::iter::once(keys.slot(&queue, 4, slot)).chain(pieces).collect()
}

/// The sizes of the head and of the pieces that exist.
async fn sizes(fixture: &Fixture) -> Vec<i64> {
    let mut sizes = Vec::new();
    for key in keys(fixture).await {
        let size: i64 = fixture.redis.ask(cmd("ZCARD").arg(&key)).await;
        if size > 0 {
            let encoding: String = fixture.redis.ask(cmd("OBJECT").arg("ENCODING").arg(&key)).await;
            assert_eq!(encoding, "listpack", "a key of {size} tasks");
            sizes.push(size);
        }
    }
    sizes
}

#[tokio::test]
async fn long_queue_is_stored_in_pieces_and_served_in_order() {
    let fixture = Fixture::with_shards(1).await;
    for from in (0..1000).step_by(100) {
        submit(&fixture, from..from + 100).await;
    }
    let stored = sizes(&fixture).await;
    assert_eq!(stored.iter().sum::<i64>(), 1000);
    assert!(stored.len() as i64 <= 2 + 1000 / PIECE && stored.iter().all(|size| *size <= PIECE), "{stored:?}");

    let (mut served, mut max) = (Vec::new(), 0);
    while served.len() < 990 {
        max = max % 68 + 33;
        served.extend(work(&fixture, max).await);
    }
    served.extend(work(&fixture, 100).await);
    assert_eq!(served, (0..1000).collect::<Vec<_>>());
    assert!(sizes(&fixture).await.is_empty());
    fixture.end().await;
}

#[tokio::test]
async fn key_with_the_slot_of_keyless_tasks_takes_turns_with_them() {
    let fixture = Fixture::with_shards(1).await;
    submit(&fixture, 0..200).await;
    fixture.submit_with(json!({"queue": "q", "payload": 200, "key": "q"})).await;
    submit(&fixture, 201..300).await;
    let mut served = Vec::new();
    while served.len() < 300 {
        served.extend(work(&fixture, 100).await);
    }
    assert_eq!(served.remove(1), 200);
    assert_eq!(served, (0..200).chain(201..300).collect::<Vec<_>>());
    fixture.end().await;
}

#[tokio::test]
async fn list_of_a_long_queue_passes_over_no_task_while_others_are_claimed() {
    let fixture = Fixture::with_shards(1).await;
    submit(&fixture, 0..1000).await;
    let (mut listed, mut cursor) = (Vec::new(), String::new());
    loop {
        let page = fixture.http.get(&format!("/tasks?queue=q&state=ready&limit=100{cursor}")).await.expect(200);
        listed.extend(page["tasks"].as_array().unwrap().iter().map(|task| task["payload"].as_u64().unwrap()));
        work(&fixture, 50).await;
        let Some(next) = page["next_cursor"].as_str() else { break };
        cursor = format!("&cursor={next}");
    }
    assert_eq!(listed, (0..1000).collect::<Vec<_>>());
    fixture.end().await;
}

#[tokio::test]
async fn purge_of_a_long_queue_deletes_all_of_it() {
    let fixture = Fixture::with_shards(1).await;
    for from in (0..3000).step_by(1000) {
        submit(&fixture, from..from + 1000).await;
    }
    let purged = fixture.http.post("/queues/q/purge", &json!({"states": ["ready"]})).await.expect(200);
    assert_eq!(purged["deleted"], 3000, "{purged}");
    assert!(sizes(&fixture).await.is_empty());
    fixture.end().await;
}

/// The tasks of the queue: the ready ones by their place in line, the leased ones with their place.
#[derive(Default)]
struct Expected {
    ready: BTreeMap<u64, u64>,
    leased: Vec<(u64, Value)>,
    last_place: u64,
    ids: BTreeMap<u64, String>,
}

impl Expected {
    fn line_up(&mut self, number: u64) {
        self.last_place += 1;
        self.ready.insert(self.last_place, number);
    }
}

async fn submit_some(fixture: &Fixture, expected: &mut Expected, count: u64) {
    let from = expected.ids.len() as u64;
    for (number, id) in (from..from + count).zip(submit(fixture, from..from + count).await) {
        expected.line_up(number);
        expected.ids.insert(number, id);
    }
}

async fn claim_some(fixture: &Fixture, expected: &mut Expected, max: u32) {
    let claimed = fixture.claim_now("q", max).await;
    assert_eq!(claimed.len(), expected.ready.len().min(max as usize));
    for task in claimed {
        let (place, number) = expected.ready.pop_first().unwrap();
        assert_eq!(task["payload"], number, "the first in line");
        expected.leased.push((place, task));
    }
}

/// Takes a random lease out of the expected ones.
fn any_lease(expected: &mut Expected, random: &mut StdRng) -> Option<(u64, Value)> {
    let count = expected.leased.len();
    (count > 0).then(|| expected.leased.swap_remove(random.random_range(0..count)))
}

async fn end_some(fixture: &Fixture, expected: &mut Expected, random: &mut StdRng) {
    for _ in 0..8 {
        let Some((place, task)) = any_lease(expected, random) else { return };
        let number = task["payload"].as_u64().unwrap();
        match random.random_range(0..4) {
            0 => {
                fixture.http.post("/release", &report(&task)).await.expect(200);
                expected.ready.insert(place, number);
            }
            1 => {
                let failure = json!({"error": {"type": "t", "message": "m"}, "retry_in_ms": 0});
                let answer = fixture.http.post("/fail", &report_with(&task, failure)).await.expect(200);
                if answer["state"] == "ready" {
                    expected.line_up(number);
                }
            }
            _ => drop(fixture.http.post("/complete", &report(&task)).await.expect(200)),
        }
    }
}

/// Cancels ready tasks from a random place in line on.
async fn cancel_some(fixture: &Fixture, expected: &mut Expected, random: &mut StdRng) {
    let Some(from) = (!expected.ready.is_empty()).then(|| random.random_range(0..expected.ready.len())) else { return };
    let places: Vec<u64> = expected.ready.keys().skip(from).take(20).copied().collect();
    for place in places {
        let number = expected.ready.remove(&place).unwrap();
        fixture.http.post(&format!("/tasks/{}/cancel", expected.ids[&number]), &json!({})).await.expect(200);
    }
}

#[tokio::test]
async fn order_of_a_long_queue_is_kept_through_releases_retries_and_cancels() {
    let fixture = Fixture::with_shards(1).await;
    let seed: u64 = rand::random();
    println!("seed {seed}");
    let (mut random, mut expected) = (StdRng::seed_from_u64(seed), Expected::default());
    for round in 0..60 {
        // The queue grows, then it drains.
        let (most_new, most_claimed) = if round % 30 < 15 { (150, 40) } else { (30, 100) };
        let count = random.random_range(0..most_new);
        if count > 0 {
            submit_some(&fixture, &mut expected, count).await;
        }
        claim_some(&fixture, &mut expected, random.random_range(1..=most_claimed)).await;
        end_some(&fixture, &mut expected, &mut random).await;
        cancel_some(&fixture, &mut expected, &mut random).await;
    }
    let store = fixture.store().await;
    let findings = audit(&store).await.expect("an audit").findings;
    assert!(findings.is_empty(), "{findings:#?}");
    while !expected.ready.is_empty() {
        claim_some(&fixture, &mut expected, 100).await;
    }
    assert!(sizes(&fixture).await.is_empty());
    fixture.end().await;
}

#[tokio::test]
async fn tasks_that_are_in_the_head_and_in_a_piece_are_claimed_once() {
    let fixture = Fixture::with_shards(1).await;
    submit(&fixture, 0..400).await;
    let (mut keys, mut pieces) = (keys(&fixture).await, Vec::new());
    for key in keys.split_off(1) {
        if fixture.redis.ask::<i64>(cmd("ZCARD").arg(&key)).await > 0 {
            pieces.push(key);
        }
    }
    // As a call leaves them that is stopped while it moves a piece.
    fixture.redis.ask::<()>(cmd("ZUNIONSTORE").arg(&keys[0]).arg(2).arg(&keys[0]).arg(&pieces[0])).await;
    let mut served = Vec::new();
    while served.len() < 400 {
        let numbers = work(&fixture, 100).await;
        assert!(!numbers.is_empty(), "{} of 400", served.len());
        served.extend(numbers);
    }
    served.sort_unstable();
    assert_eq!(served, (0..400).collect::<Vec<_>>());
    let rest = repair(&fixture.store().await, |_| {}).await.expect("a repair").findings;
    assert!(rest.is_empty(), "{rest:#?}");
    fixture.end().await;
}

#[tokio::test]
async fn pieces_that_are_missing_in_a_record_are_served_after_a_repair() {
    let fixture = Fixture::with_shards(1).await;
    submit(&fixture, 0..600).await;
    let store = fixture.store().await;
    let callers = store.first_shard().keys.callers();
    let record: Vec<u8> = fixture.redis.ask(cmd("HGET").arg(&callers).arg("queue:q")).await;
    let fields = slotwheel::store::layout::QUEUE.bytes();
    assert_eq!(record.len(), fields + slotwheel::store::layout::PIECES.bytes());
    let without = record.get(..fields).unwrap();
    fixture.redis.ask::<()>(cmd("HSET").arg(&callers).arg("queue:q").arg(without)).await;

    let rest = repair(&store, |_| {}).await.expect("a repair").findings;
    assert!(rest.is_empty(), "{rest:#?}");
    let mut served = Vec::new();
    while served.len() < 600 {
        served.extend(work(&fixture, 100).await);
    }
    assert_eq!(served, (0..600).collect::<Vec<_>>());
    fixture.end().await;
}

#[tokio::test]
async fn tasks_of_a_rare_priority_fill_their_pieces_beside_others() {
    let fixture = Fixture::with_shards(1).await;
    let task = |priority: u8| json!({"queue": "q", "payload": 1, "priority": priority});
    for _ in 0..6 {
        for (priority, count) in [(1, 8), (4, 100)] {
            fixture.http.post("/tasks/batch", &json!({"tasks": vec![task(priority); count]})).await.expect(200);
        }
    }
    let keys = fixture.store().await.first_shard().keys.clone();
    let mut used = 0;
    for piece in 0..PIECES {
        let key = keys.piece(&QueueName::parse("q").unwrap(), 1, Slot::of_key(b"q"), piece);
        used += fixture.redis.ask::<i64>(cmd("EXISTS").arg(&key)).await;
    }
    assert_eq!(used, 1, "48 tasks: a head and a piece");
    fixture.end().await;
}

#[tokio::test]
async fn expired_task_that_is_retried_leaves_its_place_in_a_long_queue() {
    let lab = Lab::start().await;
    let mut tasks = in_one_slot(1000..1060);
    tasks[0].expires_in_ms = Some(600_000);
    lab.submit(&tasks).await.unwrap();
    lab.at(lab.now() + 600_001);
    retry(lab.shard(), &mut Caller::new(), &[id(1000)]).await.unwrap();
    let findings = audit(&lab.store).await.expect("an audit").findings;
    assert!(findings.is_empty(), "{findings:#?}");
    let mut claimed = Vec::new();
    while claimed.len() < 60 {
        claimed.extend(lab.claim(&["q"], &[want(50, None, 1)]).await.unwrap());
    }
    let order: Vec<TaskId> = claimed.iter().map(|task| task.id).collect();
    assert_eq!(order, (1001..1060).chain([1000]).map(id).collect::<Vec<_>>());
    lab.end().await;
}

#[tokio::test]
async fn many_tasks_of_one_submit_are_handed_over_too() {
    let lab = Lab::start().await;
    let handed = lab.submit_to(&["q"], &[want(5, None, 1)], &in_one_slot(1000..1080)).await.unwrap();
    assert_eq!(handed.iter().map(|one| one.id).collect::<Vec<_>>(), (1000..1005).map(id).collect::<Vec<_>>());
    lab.end().await;
}
