//! Lists of ended tasks with more tasks than a piece: they are stored in pieces, and read, deleted and purged like short ones.

use std::collections::BTreeSet;

use deadpool_redis::redis::cmd;
use rand::rngs::StdRng;
use rand::seq::SliceRandom as _;
use rand::{RngExt as _, SeedableRng as _};
use serde_json::{Value, json};
use slotwheel::domain::id::TaskId;
use slotwheel::domain::queue::QueueName;
use slotwheel::domain::state::State;
use slotwheel::store::Caller;
use slotwheel::store::layout::PIECE;
use slotwheel::store::ops::cancel::cancel;
use slotwheel::store::ops::purge_ended::purge_ended;
use slotwheel::store::views::ended::{EndedList, oldest_ended};
use slotwheel::store::views::page::page_by_time;

use crate::support::script_lab::{Lab, in_one_slot, queue};
use crate::support::{Fixture, report, text};

/// Pieces that a test may make.
const PIECES: i64 = 128;

/// Submits tasks of queue `q`, and completes them in calls of `batch`. Returns their ids in that order.
async fn complete_many(fixture: &Fixture, count: usize, batch: usize, more: Value) -> Vec<String> {
    let mut ids = Vec::new();
    while ids.len() < count {
        let mut task = json!({"queue": "q", "payload": ids.len()});
        task.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        let tasks = vec![task; batch.min(count - ids.len())];
        fixture.http.post("/tasks/batch", &json!({"tasks": tasks})).await.expect(200);
        loop {
            let tasks = fixture.claim_now("q", 100).await;
            if tasks.is_empty() {
                break;
            }
            let completions: Vec<Value> = tasks.iter().map(report).collect();
            fixture.http.post("/complete/batch", &json!({"completions": completions})).await.expect(200);
            ids.extend(tasks.iter().map(|task| text(&task["id"]).to_owned()));
        }
    }
    ids
}

/// Lists all completed tasks, page by page: their ids.
async fn listed(fixture: &Fixture, limit: usize) -> Vec<String> {
    let (mut tasks, mut cursor) = (Vec::<Value>::new(), String::new());
    loop {
        let page = fixture.http.get(&format!("/tasks?queue=q&state=completed&limit={limit}{cursor}")).await.expect(200);
        tasks.extend(page["tasks"].as_array().unwrap().iter().cloned());
        let Some(next) = page["next_cursor"].as_str() else { break };
        cursor = format!("&cursor={next}");
    }
    let order: Vec<(&str, &str)> = tasks.iter().map(|task| (text(&task["finished_at"]), text(&task["id"]))).collect();
    assert!(order.is_sorted_by(|one, other| one > other), "newest first, each once");
    tasks.iter().map(|task| text(&task["id"]).to_owned()).collect()
}

/// Asserts that each key of the list is short, and that all together have `count` tasks.
async fn check_keys(fixture: &Fixture, count: usize) {
    let keys = fixture.store().await.first_shard().keys.clone();
    let head = keys.ended(&QueueName::parse("q").unwrap(), State::Completed);
    let mut sum = 0;
    for piece in -1..PIECES {
        let key = if piece < 0 { head.clone() } else { [&head[..], format!(":{piece}").as_bytes()].concat() };
        let size: i64 = fixture.redis.ask(cmd("ZCARD").arg(&key)).await;
        assert!(size <= PIECE, "piece {piece} has {size} tasks");
        assert!(piece >= 0 || size > 0 || count == 0, "the head is empty");
        sum += size as usize;
    }
    assert_eq!(sum, count);
}

async fn delete(fixture: &Fixture, id: &str) {
    let answer = fixture.http.delete(&format!("/tasks/{id}")).await;
    assert_eq!(answer.status, 204, "{answer:?}");
}

fn set(ids: &[String]) -> BTreeSet<&String> {
    ids.iter().collect()
}

#[tokio::test]
async fn long_list_of_ended_tasks_is_stored_in_pieces_and_listed_in_order() {
    let fixture = Fixture::with_shards(1).await;
    // Tasks of one call end at the same time, in several pieces.
    let ids = [complete_many(&fixture, 700, 100, json!({})).await, complete_many(&fixture, 60, 3, json!({})).await];
    let ids = ids.concat();
    check_keys(&fixture, ids.len()).await;
    for limit in [7, 32, 100, 1000] {
        assert_eq!(set(&listed(&fixture, limit).await), set(&ids), "pages of {limit}");
    }
    fixture.end().await;
}

#[tokio::test]
async fn tasks_that_ended_first_are_found_in_all_pieces_of_a_list() {
    let fixture = Fixture::with_shards(1).await;
    let ids = complete_many(&fixture, 600, 50, json!({})).await;
    let store = fixture.store().await;
    let list = [EndedList { oldest: 0, queue: QueueName::parse("q").unwrap(), state: State::Completed }];
    for limit in [1, 130, 1000] {
        let pages = oldest_ended(store.first_shard(), &list, i64::MAX, limit).await.expect("a page");
        assert!(pages[0].is_sorted_by_key(|(time, _)| *time));
        let found: Vec<String> = pages[0].iter().map(|(_, id)| id.to_string()).collect();
        assert_eq!(found.len(), limit.min(600));
        let first: BTreeSet<&String> = ids.iter().take(limit.div_ceil(50) * 50).collect();
        assert!(found.iter().all(|id| first.contains(id)), "the first {limit}");
    }
    fixture.end().await;
}

#[tokio::test]
async fn unreadable_piece_of_a_queue_keeps_no_task_of_another() {
    for piece in ["", ":3", ":7"] {
        let fixture = Fixture::with_shards(1).await;
        let ids = complete_many(&fixture, 300, 100, json!({})).await;
        fixture.submit("other", json!(1)).await;
        let other = fixture.claim_one("other").await;
        fixture.http.post("/complete", &report(&other)).await.expect(200);
        let store = fixture.store().await;
        let lists = ["q", "other"].map(|queue| EndedList {
            oldest: 0,
            queue: QueueName::parse(queue).unwrap(),
            state: State::Completed,
        });
        let keys = &store.first_shard().keys;
        let key = [&keys.ended(&lists[0].queue, State::Completed)[..], piece.as_bytes()].concat();
        let aside = [keys.retention(), b"_aside".to_vec()].concat();
        fixture.redis.ask::<()>(cmd("RENAME").arg(&key).arg(&aside)).await;
        fixture.redis.ask::<()>(cmd("SET").arg(&key).arg("x")).await;

        let pages = oldest_ended(store.first_shard(), &lists, i64::MAX, 1000).await.expect("pages");
        assert!(pages[0].len() < ids.len() && pages[1].len() == 1, "{piece}");
        fixture.advance(3_600_001);
        let path = format!("/tasks/{}", text(&other["id"]));
        fixture.until(|| async { (fixture.http.get(&path).await.status == 404).then_some(()) }).await;
        fixture.redis.ask::<()>(cmd("RENAME").arg(&aside).arg(&key)).await;
        fixture.advance(60_001);
        fixture.until(|| async { (fixture.counts("q").await["completed"] == 0).then_some(()) }).await;
        fixture.end().await;
    }
}

#[tokio::test]
async fn deleted_tasks_leave_a_long_list_whole() {
    let fixture = Fixture::with_shards(1).await;
    let seed: u64 = rand::random();
    println!("seed {seed}");
    let mut random = StdRng::seed_from_u64(seed);
    let mut ids = complete_many(&fixture, 400, 100, json!({})).await;
    // The whole head, then tasks anywhere, then the whole end.
    let head: Vec<String> = ids.drain(..150).collect();
    let end = ids.split_off(ids.len() - 100);
    for id in &head {
        delete(&fixture, id).await;
    }
    assert_eq!(set(&listed(&fixture, 100).await), ids.iter().chain(&end).collect());
    ids.shuffle(&mut random);
    let some = ids.split_off(random.random_range(50..100));
    for id in some.iter().chain(&end) {
        delete(&fixture, id).await;
    }
    check_keys(&fixture, ids.len()).await;
    assert_eq!(set(&listed(&fixture, 10).await), set(&ids));
    ids.extend(complete_many(&fixture, 200, 100, json!({})).await);
    assert_eq!(set(&listed(&fixture, 100).await), set(&ids));
    let purged = fixture.http.post("/queues/q/purge", &json!({"states": ["completed"]})).await.expect(200);
    assert_eq!(purged["deleted"], ids.len());
    check_keys(&fixture, 0).await;
    fixture.end().await;
}

#[tokio::test]
async fn retention_empties_a_long_list_but_for_tasks_with_their_own() {
    let fixture = Fixture::with_shards(1).await;
    let mut kept = Vec::new();
    for _ in 0..4 {
        complete_many(&fixture, 150, 50, json!({})).await;
        kept.extend(complete_many(&fixture, 100, 50, json!({"retain_ms": 864_000_000})).await);
    }
    let gone = |count: usize| {
        let fixture = &fixture;
        move || async move {
            let counts = fixture.counts("q").await;
            (counts["completed"] == count).then_some(())
        }
    };
    fixture.advance(3_600_001);
    fixture.until(gone(kept.len())).await;
    assert_eq!(set(&listed(&fixture, 100).await), set(&kept));
    // Those that end later are deleted too, behind all that are kept.
    complete_many(&fixture, 300, 100, json!({})).await;
    fixture.advance(3_600_001);
    fixture.until(gone(kept.len())).await;
    fixture.advance(864_000_000);
    fixture.until(gone(0)).await;
    check_keys(&fixture, 0).await;
    fixture.end().await;
}

#[tokio::test]
async fn dead_tasks_of_a_long_list_are_retried_from_any_piece() {
    let fixture = Fixture::with_shards(1).await;
    let task = json!({"queue": "q", "payload": 1, "max_attempts": 1});
    fixture.http.post("/tasks/batch", &json!({"tasks": vec![task; 300]})).await.expect(200);
    let mut ids = Vec::new();
    while ids.len() < 300 {
        for task in fixture.claim_now("q", 100).await {
            let failure = json!({"id": task["id"], "lease": task["lease"], "error": {"type": "t", "message": "m"}});
            fixture.http.post("/fail", &failure).await.expect(200);
            ids.push(text(&task["id"]).to_owned());
        }
    }
    for id in ids.iter().step_by(2) {
        fixture.http.post_nothing(&format!("/tasks/{id}/retry")).await.expect(200);
    }
    let counts = fixture.counts("q").await;
    assert_eq!((&counts["ready"], &counts["dead"]), (&json!(150), &json!(150)));
    fixture.end().await;
}

#[tokio::test]
async fn ends_are_listed_in_their_order_when_the_clock_goes_back() {
    let fixture = Fixture::with_shards(1).await;
    let mut ids = Vec::new();
    for _ in 0..4 {
        ids.extend(complete_many(&fixture, 100, 100, json!({})).await);
        // Less than what is taken for a step of the clock.
        fixture.advance(-400);
    }
    assert_eq!(set(&listed(&fixture, 10).await), set(&ids));
    fixture.end().await;
}

#[tokio::test]
async fn page_passes_over_no_task_behind_emptied_pieces() {
    let fixture = Fixture::with_shards(1).await;
    let mut ids = complete_many(&fixture, 200, 100, json!({})).await;
    for id in ids.drain(40..) {
        delete(&fixture, &id).await;
    }
    for _ in 0..3 {
        fixture.advance(2);
        ids.extend(complete_many(&fixture, 1, 1, json!({})).await);
    }
    assert_eq!(set(&listed(&fixture, 1).await), set(&ids));
    fixture.end().await;
}

#[tokio::test]
async fn rare_ends_fill_their_pieces_beside_frequent_ones() {
    let fixture = Fixture::with_shards(1).await;
    for _ in 0..5 {
        complete_many(&fixture, 100, 100, json!({})).await;
        let task = json!({"queue": "q", "payload": 1});
        let answer = fixture.http.post("/tasks/batch", &json!({"tasks": vec![task; 8]})).await.expect(200);
        for result in answer["results"].as_array().unwrap() {
            let id = text(&result["task"]["id"]);
            fixture.http.post_nothing(&format!("/tasks/{id}/cancel")).await.expect(200);
        }
    }
    let keys = fixture.store().await.first_shard().keys.clone();
    let head = keys.ended(&QueueName::parse("q").unwrap(), State::Cancelled);
    let mut used = 0;
    for piece in 0..PIECES {
        let key = [&head[..], format!(":{piece}").as_bytes()].concat();
        used += fixture.redis.ask::<i64>(cmd("EXISTS").arg(&key)).await;
    }
    assert_eq!(used, 1, "40 tasks: a head and a piece");
    fixture.end().await;
}

#[tokio::test]
async fn tasks_in_two_keys_of_a_list_are_listed_and_purged_once() {
    let lab = Lab::start().await;
    let tasks = in_one_slot(1000..1040);
    let ids: Vec<TaskId> = tasks.iter().map(|task| task.id).collect();
    lab.submit(&tasks).await.unwrap();
    cancel(lab.shard(), &mut Caller::new(), &ids).await.unwrap();
    // As a call leaves them that is stopped while it moves a piece.
    let (head, piece) = (lab.key("ended:q:cancelled"), lab.key("ended:q:cancelled:2"));
    let moved = lab.ask::<i64>(cmd("ZUNIONSTORE").arg(&head).arg(2).arg(&head).arg(&piece)).await;
    assert_eq!(moved, 40);
    let page = page_by_time(lab.shard(), &queue("q"), State::Cancelled, None, 100).await.unwrap();
    assert_eq!(page.len(), 40);
    lab.at(lab.now() + 86_400_001);
    assert_eq!(purge_ended(lab.shard(), &mut Caller::new(), 100).await.unwrap().deleted, 40);
    lab.end().await;
}
