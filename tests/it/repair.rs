//! Audit and repair beside working servers: violations are repaired, valid data is left alone, and no task is lost.

use std::collections::BTreeSet;
use std::sync::atomic::{AtomicBool, Ordering};

use deadpool_redis::redis::{Cmd, cmd};
use serde_json::json;
use slotwheel::domain::id::TaskId;
use slotwheel::domain::queue::QueueName;
use slotwheel::domain::state::State;
use slotwheel::store::Shard;
use slotwheel::store::audit::{RepairEvent, audit, repair};
use slotwheel::store::layout::queue::Field;
use slotwheel::store::record::fields;
use slotwheel::store::views::page::page_by_time;

use crate::support::records::raise;
use crate::support::{Fixture, Http, report, report_with, text};

/// Longer than any test moves the clock.
const RETAIN_MS: i64 = 100_000_000_000;

/// Submits and works on tasks until `stop`. Returns the ids of all accepted tasks.
async fn load(http: &Http, stop: &AtomicBool, n: usize) -> BTreeSet<String> {
    let mut turn = 0;
    let mut ids = BTreeSet::new();
    while !stop.load(Ordering::Relaxed) {
        turn += 1;
        let mut tasks = Vec::new();
        for i in 0..8 {
            let mut task =
                json!({"queue": format!("q{}", i % 2), "payload": i, "key": format!("k{}", (turn + i) % 20)});
            task["retain_ms"] = json!(RETAIN_MS);
            match i {
                2 => task["delay_ms"] = json!(20),
                3 => task["priority"] = json!(turn % 10),
                4 => task["dedupe"] = json!({"key": format!("d{}", turn % 3), "mode": "replace"}),
                5 => task["dedupe"] = json!({"key": format!("e{}", turn % 3), "mode": "keep", "window_ms": 50}),
                6 => task["expires_in_ms"] = json!(30_000),
                _ => {}
            }
            tasks.push(task);
        }
        let answer = http.post("/tasks/batch", &json!({"tasks": tasks})).await.expect(200);
        ids.extend(answer["results"].as_array().unwrap().iter().map(|result| text(&result["task"]["id"]).to_owned()));
        let wish = json!({"queues": ["q0", "q1"], "max": 8, "claim_id": format!("{n}-{turn}")});
        let claimed = http.post("/claim", &wish).await.expect(200);
        for (i, task) in claimed["tasks"].as_array().unwrap().iter().enumerate() {
            let answer = match i {
                0 => {
                    http.post(
                        "/fail",
                        &report_with(task, json!({"error": {"type": "t", "message": "m"}, "retry_in_ms": 10})),
                    )
                    .await
                }
                1 => http.post("/release", &report(task)).await,
                2 => http.post(&format!("/tasks/{}/cancel", text(&task["id"])), &json!({})).await,
                _ => http.post("/complete", &report(task)).await,
            };
            answer.expect(200);
        }
    }
    ids
}

/// Works until no waiting or leased task is left.
async fn work_off(fixture: &Fixture) {
    fixture
        .until(|| async {
            fixture.advance(3_600_000);
            let mut left = 0;
            for queue in ["q0", "q1"] {
                for task in fixture.claim_now(queue, 100).await {
                    fixture.http.post("/complete", &report(&task)).await;
                }
                let counts = fixture.counts(queue).await;
                left +=
                    ["scheduled", "ready", "leased"].iter().filter_map(|state| counts[*state].as_i64()).sum::<i64>();
            }
            (left == 0).then_some(())
        })
        .await;
}

#[tokio::test]
async fn audit_of_a_store_in_use_has_no_finding() {
    let fixture = Fixture::with_shards(2).await;
    let (store, stop) = (fixture.store().await, AtomicBool::new(false));
    let look = async {
        let mut tasks = 0;
        // Waits until an audit can meet half a transition.
        while tasks < 1500 {
            let seen = audit(&store).await.expect("an audit");
            assert!(seen.findings.is_empty(), "{:#?}", seen.findings);
            tasks = seen.tasks;
        }
        stop.store(true, Ordering::Relaxed);
    };
    tokio::join!(look, load(&fixture.http, &stop, 0), load(&fixture.http, &stop, 1), load(&fixture.http, &stop, 2));
    fixture.end().await;
}

fn key(shard: &Shard, rest: &str) -> Vec<u8> {
    format!("{}{rest}", shard.keys.base()).into_bytes()
}

fn on(name: &str, key: Vec<u8>) -> Cmd {
    let mut command = cmd(name);
    command.arg(key);
    command
}

/// Damages indexes, counts and keys of the shard, but no task.
async fn damage(fixture: &Fixture, shard: &Shard, gone: &TaskId) {
    let ask = async |command: &Cmd| fixture.redis.ask::<()>(command).await;
    for queue in ["q0", "q1"] {
        for (name, rest) in [("ZPOPMIN", "wheel"), ("ZPOPMAX", "scheduled"), ("ZPOPMIN", "leased")] {
            ask(&on(name, key(shard, &format!("{rest}:{queue}")))).await;
        }
        ask(on("HDEL", shard.keys.callers()).arg(format!("queue:{queue}"))).await;
        ask(on("ZADD", key(shard, &format!("scheduled:{queue}"))).arg(1).arg(gone.as_bytes())).await;
        ask(on("ZADD", key(shard, &format!("wheel:{queue}"))).arg(1).arg("4:16383")).await;
        ask(on("ZADD", key(shard, &format!("ended:{queue}:dead"))).arg(1).arg(b"none")).await;
        ask(on("ZREM", key(shard, "queues")).arg(queue)).await;
        let pattern = key(shard, &format!("slot:{queue}:*"));
        let slots: Vec<Vec<u8>> = fixture.redis.ask(&on("KEYS", pattern)).await;
        for slot in slots.into_iter().take(3) {
            ask(&on("ZPOPMIN", slot)).await;
        }
        let keys: Vec<Vec<u8>> = fixture.redis.ask(&on("KEYS", key(shard, &format!("dedupe:{queue}:*")))).await;
        for key in keys.into_iter().take(1) {
            ask(&on("DEL", key)).await;
        }
    }
    ask(&on("DEL", key(shard, "due"))).await;
    ask(&on("ZPOPMIN", key(shard, "retention"))).await;
    ask(&on("DEL", key(shard, "ended_due"))).await;
    raise(&fixture.redis, &shard.keys.callers(), "shard", Field::leased, 7).await;
}

#[tokio::test]
async fn repair_beside_working_servers_repairs_all_and_loses_no_task() {
    let fixture = Fixture::with_shards(2).await;
    let (store, stop) = (fixture.store().await, AtomicBool::new(false));
    let mut ids = BTreeSet::new();
    for n in 0..40 {
        let mut body = json!({"queue": "q0", "payload": n, "key": format!("k{n}"), "retain_ms": RETAIN_MS});
        body["delay_ms"] = json!(if n % 2 == 0 { 0 } else { 600_000 });
        ids.insert(text(&fixture.submit_with(body).await["id"]).to_owned());
    }
    // The id of a missing task.
    let gone = fixture.submit("q0", json!(1)).await["id"].clone();
    fixture.http.post(&format!("/tasks/{}/cancel", text(&gone)), &json!({})).await.expect(200);
    let deleted = fixture.http.delete(&format!("/tasks/{}", text(&gone))).await;
    assert_eq!(deleted.status, 204);
    let gone = TaskId::parse(text(&gone)).unwrap();
    let look = async {
        while audit(&store).await.expect("an audit").tasks < 300 {}
        for _ in 0..3 {
            for shard in store.shards() {
                damage(&fixture, shard, &gone).await;
            }
            let (mut found, mut repaired) = (0, 0);
            let rest = repair(&store, |step| match step {
                RepairEvent::Found(_) => found += 1,
                RepairEvent::Repaired(_) => repaired += 1,
            });
            let rest = rest.await.expect("a repair").findings;
            assert!(rest.is_empty(), "{rest:#?}");
            assert!(found > 20 && repaired > 20, "{found} found, {repaired} repaired");
        }
        stop.store(true, Ordering::Relaxed);
    };
    let (_, a, b) = tokio::join!(look, load(&fixture.http, &stop, 0), load(&fixture.http, &stop, 1));
    ids.extend(a.into_iter().chain(b));
    let seen = audit(&store).await.expect("an audit");
    assert!(seen.findings.is_empty(), "{:#?}", seen.findings);
    assert_eq!(seen.tasks, ids.len() as u64, "all accepted tasks exist");
    work_off(&fixture).await;
    for id in &ids {
        assert!(fixture.task(&json!(id)).await["finished_at"].is_string(), "{id} has ended");
    }
    fixture.end().await;
}

#[tokio::test]
async fn unreadable_task_is_set_aside_and_returns_when_it_is_put_back() {
    let fixture = Fixture::start().await;
    let broken = fixture.submit("q", json!(1)).await["id"].clone();
    let whole = fixture.submit("q", json!(2)).await["id"].clone();
    let store = fixture.store().await;
    let id = TaskId::parse(text(&broken)).unwrap();
    let shard = store.shard_for_task(&id);
    let task = shard.keys.task(&id);
    let document: Vec<u8> = fixture.redis.ask(cmd("HGET").arg(&task).arg(fields::DOCUMENT)).await;
    fixture.redis.ask::<()>(cmd("HDEL").arg(&task).arg(fields::DOCUMENT)).await;

    let findings = audit(&store).await.expect("an audit").findings;
    let findings: Vec<_> = findings.iter().map(|finding| finding.text.clone()).collect();
    assert_eq!(findings.len(), 1, "{findings:?}");
    assert!(findings[0].contains(text(&broken)) && findings[0].contains("field d"), "{findings:?}");
    // It blocks no other task.
    assert_eq!(fixture.claim_one("q").await["id"], whole);
    let rest = repair(&store, |_| {}).await.expect("a repair");
    assert!(rest.findings.is_empty() && rest.remarks.len() == 1, "{rest:?}");
    let counts = fixture.counts("q").await;
    assert_eq!((&counts["submitted"], &counts["ready"], &counts["deleted"]), (&json!(2), &json!(0), &json!(1)));

    let aside: Vec<Vec<u8>> = fixture.redis.ask(&on("KEYS", key(shard, "quarantine:*"))).await;
    assert!(aside.len() == 1 && aside[0].ends_with(id.as_bytes()), "{aside:?}");
    fixture.redis.ask::<()>(cmd("HSET").arg(&aside[0]).arg(fields::DOCUMENT).arg(document)).await;
    fixture.redis.ask::<()>(cmd("RENAME").arg(&aside[0]).arg(&task)).await;
    assert!(repair(&store, |_| {}).await.expect("a repair").findings.is_empty());
    assert_eq!(fixture.claim_one("q").await["id"], broken);
    fixture.end().await;
}

#[tokio::test]
async fn dedupe_key_is_given_to_the_live_task_and_taken_from_the_ended() {
    let fixture = Fixture::start().await;
    let body = |key: &str, n: i64| json!({"queue": "q", "payload": n, "dedupe": {"key": key, "mode": "keep"}});
    let held = fixture.submit_with(body("a", 1)).await["id"].clone();
    let store = fixture.store().await;
    let id = TaskId::parse(text(&held)).unwrap();
    let shard = store.shard_for_task(&id);
    let digest: Vec<u8> = fixture.redis.ask(cmd("HGET").arg(shard.keys.task(&id)).arg(fields::DEDUPE_DIGEST)).await;
    let key = [shard.keys.base().as_bytes(), b"dedupe:q:", &digest].concat();

    fixture.redis.ask::<()>(cmd("DEL").arg(&key)).await;
    assert_eq!(audit(&store).await.expect("an audit").findings.len(), 1);
    assert!(repair(&store, |_| {}).await.expect("a repair").findings.is_empty());
    assert_eq!(fixture.http.post("/tasks", &body("a", 2)).await.expect(200)["id"], held);

    fixture.http.post("/complete", &report(&fixture.claim_one("q").await)).await.expect(200);
    fixture.redis.ask::<()>(cmd("SET").arg(&key).arg(id.as_bytes())).await;
    // The stale key rejects no new task even before a repair.
    let next = fixture.http.post("/tasks", &body("a", 3)).await.expect(201)["id"].clone();
    fixture.redis.ask::<()>(cmd("SET").arg(&key).arg(id.as_bytes())).await;
    assert!(repair(&store, |_| {}).await.expect("a repair").findings.is_empty());
    assert_eq!(fixture.http.post("/tasks", &body("a", 4)).await.expect(200)["id"], next);
    let queue = QueueName::parse("q").unwrap();
    assert_eq!(page_by_time(shard, &queue, State::Completed, None, 10).await.expect("a page").len(), 1);
    fixture.end().await;
}

#[tokio::test]
async fn leftover_entry_in_scheduled_does_not_move_a_leased_task() {
    let fixture = Fixture::start().await;
    fixture.submit("q", json!(1)).await;
    let claimed = fixture.claim_one("q").await;
    let store = fixture.store().await;
    let id = TaskId::parse(text(&claimed["id"])).unwrap();
    let shard = store.shard_for_task(&id);
    let scheduled = key(shard, "scheduled:q");

    fixture.redis.ask::<()>(on("ZADD", scheduled.clone()).arg(1).arg(id.as_bytes())).await;
    fixture.redis.ask::<()>(on("ZADD", key(shard, "due")).arg(1).arg("q")).await;
    fixture
        .until(|| async { (fixture.redis.ask::<i64>(&on("ZCARD", scheduled.clone())).await == 0).then_some(()) })
        .await;

    assert_eq!(fixture.task(&claimed["id"]).await["state"], "leased");
    assert!(fixture.claim_now("q", 10).await.is_empty());
    fixture.http.post("/complete", &report(&claimed)).await.expect(200);
    fixture.end().await;
}
