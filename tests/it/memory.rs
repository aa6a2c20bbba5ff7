//! Ended tasks give way to work: when the memory of Redis is short, and when a queue has many of them.

use deadpool_redis::redis::cmd;
use serde_json::{Value, json};
use slotwheel::config::{Durability, MaxMemory};
use slotwheel::domain::slot::{Shards, Slot};
use slotwheel::store::redis::embedded::EmbeddedRedis;

use crate::metrics::metrics;
use crate::support::redis::{OwnRedis, TempDir};
use crate::support::{Fixture, report_with, text};

async fn used_memory(redis: &OwnRedis) -> u64 {
    let info: String = redis.ask(cmd("INFO").arg("memory")).await;
    info.lines().find_map(|line| line.strip_prefix("used_memory:")).unwrap().trim().parse().unwrap()
}

/// Limits the memory of Redis to `bytes` more than it uses. Returns the limit.
async fn leave(redis: &OwnRedis, bytes: u64) -> u64 {
    let limit = used_memory(redis).await + bytes;
    redis.ask::<()>(cmd("CONFIG").arg("SET").arg("maxmemory").arg(limit)).await;
    limit
}

/// Completes `count` new tasks with results of 100 kB, in order. Returns their ids.
async fn complete_many(fixture: &Fixture, queue: &str, count: usize) -> Vec<Value> {
    complete_keyed(fixture, queue, None, count).await
}

/// The same for tasks with this key.
async fn complete_keyed(fixture: &Fixture, queue: &str, key: Option<&str>, count: usize) -> Vec<Value> {
    let mut ids = Vec::new();
    let result = "x".repeat(100_000);
    while ids.len() < count {
        let number = (count - ids.len()).min(50);
        let tasks: Vec<Value> = (0..number).map(|_| json!({"queue": queue, "key": key})).collect();
        fixture.http.post("/tasks/batch", &json!({"tasks": tasks})).await.expect(200);
        let mut claimed = Vec::new();
        while claimed.len() < number {
            claimed.extend(fixture.claim_now(queue, 50).await);
        }
        let reports: Vec<Value> = claimed.iter().map(|task| report_with(task, json!({"result": result}))).collect();
        let answer = fixture.http.post("/complete/batch", &json!({"completions": reports})).await.expect(200);
        assert!(answer["results"].as_array().unwrap().iter().all(|result| result["status"] == 200), "{answer}");
        ids.extend(claimed.iter().map(|task| task["id"].clone()));
        fixture.advance(1);
    }
    ids
}

async fn exists(fixture: &Fixture, id: &Value) -> bool {
    fixture.http.get(&format!("/tasks/{}", text(id))).await.status == 200
}

async fn submit_large(fixture: &Fixture, count: usize) {
    let payload = "x".repeat(100_000);
    for _ in 0..count {
        fixture.submit("work", json!(payload)).await;
    }
}

#[tokio::test]
async fn oldest_ended_tasks_make_room_for_submits() {
    let mut fixture = Fixture::with_shards(1).await;
    let limit = leave(&fixture.redis, 16_000_000).await;
    let first = complete_many(&fixture, "a", 60).await;
    let later = complete_many(&fixture, "b", 60).await;
    fixture.advance(10_000);
    let last = complete_many(&fixture, "a", 1).await;

    submit_large(&fixture, 30).await;
    // Two servers make room at the same time.
    let other = fixture.another_server().await;
    let first_server = std::mem::replace(&mut fixture.http, other);
    submit_large(&fixture, 20).await;
    fixture.http = first_server;

    is_within(&fixture, limit).await;
    assert!(!exists(&fixture, &first[0]).await && exists(&fixture, &last[0]).await);
    assert!(exists(&fixture, &later[59]).await, "no more is deleted than needed");
    let deleted = fixture.counts("a").await["deleted"].as_i64().unwrap();
    assert!(deleted >= 20, "{deleted} tasks of the first queue are deleted");
    fixture
        .until(|| async {
            let ready = fixture.http.get("/readyz").await.expect(200);
            let is_short = ready["degradations"].as_array().unwrap().iter().any(|one| one["reason"] == "memory_short");
            // Upkeep of both servers may have deleted more since.
            let mut ended = 0;
            for queue in ["a", "b"] {
                ended += fixture.counts(queue).await["completed"].as_u64().unwrap();
            }
            let history = ready["memory"]["history_bytes"].as_u64().unwrap();
            let is_estimated = (ended * 90_000..ended * 130_000).contains(&history);
            (is_short && ready["memory"]["max_bytes"] == limit && is_estimated).then_some(())
        })
        .await;
    let page = metrics(&fixture).await;
    let counted = page.value("slotwheel_history_deleted_total", &[("reason", "memory_short")]).unwrap();
    assert!(counted > 0.0);
    assert_eq!(page.value("slotwheel_redis_max_memory_bytes", &[]), Some(limit as f64));
    fixture.end().await;
}

/// Waits until Redis uses less than `limit`: buffers of clients and of the log come on top for a moment.
async fn is_within(fixture: &Fixture, limit: u64) {
    fixture.until(|| async { (used_memory(&fixture.redis).await < limit).then_some(()) }).await;
}

/// Returns a key whose tasks are in this shard.
fn key_in(shards: Shards, shard: usize) -> String {
    let keys = (0..).map(|n| format!("k{n}"));
    keys.into_iter().find(|key| shards.shard_of(Slot::of_key(key.as_bytes())) == shard).unwrap()
}

#[tokio::test]
async fn ended_tasks_of_other_shards_make_room_for_submits() {
    let fixture = Fixture::with_shards(16).await;
    let shards = fixture.store().await.layout();
    let [some, others] = [key_in(shards, 3), key_in(shards, 12)];
    let first = complete_keyed(&fixture, "a", Some(&some), 40).await;
    let others = complete_keyed(&fixture, "a", Some(&others), 40).await;
    fixture.advance(10_000);
    let last = complete_keyed(&fixture, "a", Some(&some), 1).await;

    for shard in [0, 7, 15] {
        // Lowered at once: upkeep has not seen it when the submit is rejected.
        let limit = used_memory(&fixture.redis).await - 200_000;
        fixture.redis.ask::<()>(cmd("CONFIG").arg("SET").arg("maxmemory").arg(limit)).await;
        fixture.submit_with(json!({"queue": "work", "key": key_in(shards, shard)})).await;
        is_within(&fixture, limit).await;
    }

    // In each shard, the tasks that ended first.
    assert!(!exists(&fixture, &first[0]).await && !exists(&fixture, &others[0]).await);
    assert!(exists(&fixture, &first[39]).await && exists(&fixture, &others[39]).await, "no more than needed");
    assert!(exists(&fixture, &last[0]).await);
    fixture.end().await;
}

#[tokio::test]
async fn small_embedded_redis_takes_submits_in_place_of_ended_tasks() {
    let (directory, limit) = (TempDir::new(), 16_000_000);
    let embedded = EmbeddedRedis::start(directory.path(), Durability::Everysec, MaxMemory::Bytes(limit)).await.unwrap();
    // All that the test asks of its own Redis goes to the embedded one.
    let mut redis = OwnRedis::single(&[]).await;
    redis.url = embedded.url();
    let fixture = Fixture::on(redis, embedded.url(), |_| {}).await;
    let first = complete_many(&fixture, "a", 60).await;
    fixture.advance(10_000);

    submit_large(&fixture, 100).await;

    is_within(&fixture, limit).await;
    assert!(!exists(&fixture, &first[0]).await);
    fixture.end().await;
    embedded.stop().await;
}

#[tokio::test]
async fn ended_tasks_make_room_without_the_permission_for_info() {
    let fixture = Fixture::with_shards(1).await;
    complete_many(&fixture, "a", 40).await;
    fixture.advance(10_000);
    let limit = used_memory(&fixture.redis).await - 200_000;
    let rules = async |rules: &[&str]| {
        fixture.redis.ask::<()>(cmd("ACL").arg(&["SETUSER", "default"]).arg(rules)).await;
    };

    rules(&["-info"]).await;
    fixture.redis.ask::<()>(cmd("CONFIG").arg("SET").arg("maxmemory").arg(limit)).await;
    fixture.submit("work", json!(1)).await;

    rules(&["+info"]).await;
    assert!(used_memory(&fixture.redis).await < limit);
    fixture.end().await;
}

#[tokio::test]
async fn submits_are_rejected_when_no_old_task_is_left() {
    let fixture = Fixture::with_shards(1).await;
    leave(&fixture.redis, 6_000_000).await;
    let kept = complete_many(&fixture, "q", 10).await;
    let payload = json!({"queue": "work", "payload": "x".repeat(100_000)});
    let mut accepted = 0;
    loop {
        let answer = fixture.http.post("/tasks", &payload).await;
        if answer.status != 201 {
            assert_eq!(answer.problem(507).0, "store_full");
            break;
        }
        accepted += 1;
        assert!(accepted < 100, "it never fills");
    }
    // A task is kept for 10 s after its end.
    for id in &kept {
        assert!(exists(&fixture, id).await);
    }
    fixture.advance(10_001);
    let accepts = || async { (fixture.http.post("/tasks", &payload).await.status == 201).then_some(()) };
    fixture.until(accepts).await;
    fixture.end().await;
}

/// Submits tasks of 1 kB until Redis is full.
async fn fill(fixture: &Fixture) {
    let tasks: Vec<Value> = (0..100).map(|_| json!({"queue": "filler", "payload": "x".repeat(1000)})).collect();
    loop {
        let answer = fixture.http.post("/tasks/batch", &json!({"tasks": tasks})).await.expect(200);
        if answer["results"].as_array().unwrap().iter().any(|result| result["status"] == 507) {
            return;
        }
    }
}

#[tokio::test]
async fn reports_to_a_full_redis_are_taken_without_large_documents() {
    let fixture = Fixture::with_shards(1).await;
    for _ in 0..40 {
        fixture.submit("q", json!(1)).await;
    }
    let mut tasks = Vec::new();
    while tasks.len() < 40 {
        tasks.extend(fixture.claim_now("q", 40).await);
    }
    let limit = leave(&fixture.redis, 1_000_000).await;
    fill(&fixture).await;
    let large = json!("x".repeat(100_000));
    let dropped = |pointer: &str| json!([{"pointer": pointer, "reason": "dropped"}]);

    let beat = json!({"tasks": [report_with(&tasks[0], json!({"progress": large}))]});
    let beaten = fixture.http.post("/heartbeat", &beat).await.expect(200)["tasks"][0].clone();
    assert_eq!(beaten["adjusted"], dropped("/tasks/0/progress"));
    assert!(beaten["lease_until"].is_string());

    let completion = report_with(&tasks[0], json!({"result": large}));
    let completed = fixture.http.post("/complete", &completion).await.expect(200);
    assert_eq!(completed["adjusted"], dropped("/result"));
    // A repeated report gets the same response.
    assert_eq!(fixture.http.post("/complete", &completion).await.expect(200), completed);
    let task = fixture.task(&tasks[0]["id"]).await;
    assert_eq!((&task["state"], &task["result"]), (&json!("completed"), &Value::Null));
    assert_eq!((&task["result_dropped"], &task["progress"]), (&json!(true), &Value::Null));

    let failure = json!({"error": {"message": "m", "details": large}, "retry": false});
    let failed = fixture.http.post("/fail", &report_with(&tasks[1], failure)).await.expect(200);
    assert_eq!(failed["adjusted"], dropped("/error/details"));
    let task = fixture.task(&tasks[1]["id"]).await;
    assert_eq!((&task["state"], &task["errors"][0]["message"]), (&json!("dead"), &json!("m")));
    assert_eq!(task["errors"][0]["details"], Value::Null);

    let mut reports: Vec<Value> = tasks[2..].iter().map(|task| report_with(task, json!({"result": large}))).collect();
    reports[0]["result"] = json!("small");
    let answer = fixture.http.post("/complete/batch", &json!({"completions": reports})).await.expect(200);
    assert_eq!(answer["results"][0]["adjusted"], json!([]));
    assert_eq!(answer["results"][37]["adjusted"], dropped("/completions/37/result"));
    assert_eq!(fixture.task(&tasks[2]["id"]).await["result"], "small");
    let used = used_memory(&fixture.redis).await;
    assert!(used < limit + 500_000, "{used} of {limit} bytes after 4 MB of results");
    fixture.end().await;
}

#[tokio::test]
async fn results_are_kept_while_ended_tasks_can_make_room() {
    let fixture = Fixture::with_shards(1).await;
    let limit = leave(&fixture.redis, 6_000_000).await;
    for _ in 0..6 {
        let ids = complete_many(&fixture, "q", 15).await;
        let task = fixture.task(&ids[14]).await;
        assert_eq!((task["result"].as_str().unwrap().len(), &task["result_dropped"]), (100_000, &json!(false)));
        fixture.advance(10_001);
    }
    is_within(&fixture, limit).await;
    fixture.end().await;
}

#[tokio::test]
async fn queue_keeps_the_tasks_that_ended_last() {
    let fixture = Fixture::with(|written| written.max_ended_per_queue = Some(20)).await;
    let mut ids = Vec::new();
    for n in 0..30 {
        let task = fixture.submit_with(json!({"queue": "q", "key": format!("k{n}")})).await;
        fixture.http.post_nothing(&format!("/tasks/{}/cancel", text(&task["id"]))).await.expect(200);
        ids.push(task["id"].clone());
        fixture.advance(1);
    }
    // A task is kept for 10 s after its end.
    let job = [("upkeep_job", "bound_history")];
    let runs = async || metrics(&fixture).await.count("slotwheel_upkeep_run_duration_seconds_count", &job);
    let before = runs().await;
    fixture.until(|| async { (runs().await >= before + 2.0).then_some(()) }).await;
    assert_eq!(fixture.counts("q").await["cancelled"], 30);
    for _ in 0..20 {
        fixture.submit("other", json!(1)).await;
        let task = fixture.claim_one("other").await;
        fixture.http.post("/complete", &report_with(&task, json!({}))).await.expect(200);
    }
    fixture.advance(10_000);
    fixture.until(|| async { (fixture.counts("q").await["cancelled"] == 20).then_some(()) }).await;
    for (n, id) in ids.iter().enumerate() {
        assert_eq!(exists(&fixture, id).await, n >= 10, "task {n}");
    }
    assert_eq!(fixture.counts("other").await["completed"], 20);
    let page = metrics(&fixture).await;
    assert_eq!(page.value("slotwheel_history_deleted_total", &[("reason", "max_ended")]), Some(10.0));
    fixture.end().await;
}
