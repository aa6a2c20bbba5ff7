//! Operations that meet unreadable tasks and settings.

use std::time::Duration;

use deadpool_redis::redis::{cmd, pipe};
use futures_util::future::join_all;
use serde_json::json;
use slotwheel::dispatch::Dispatch;
use slotwheel::domain::id::TaskId;
use slotwheel::spans::Spans;
use slotwheel::store::ops::cancel::Cancelled;
use slotwheel::store::record::fields;
use slotwheel::store::views::queues::settings_page;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::{Damage, Place, submit, until_degraded};
use crate::support::{Fixture, report, text};

#[tokio::test]
async fn more_unreadable_tasks_than_a_claim_examines_block_no_other() {
    let fixture = Fixture::start().await;
    let place = Place::of(&fixture).await;
    let tasks =
        |count, priority| json!({"tasks": vec![json!({"queue": "q", "key": "k", "priority": priority}); count]});
    for count in [600, 200] {
        let answer = fixture.http.post("/tasks/batch", &tasks(count, 9)).await.expect(200);
        let mut damaged = pipe();
        for result in answer["results"].as_array().unwrap() {
            let id = TaskId::parse(text(&result["task"]["id"])).unwrap();
            damaged.cmd("HDEL").arg(place.shard().keys.task(&id)).arg(fields::DOCUMENT);
        }
        let mut connection = crate::support::redis::connect(&fixture.redis.url).await.unwrap();
        damaged.query_async::<()>(&mut connection).await.unwrap();
        // Behind them in their slot, of another priority, of another key, and of another queue.
        let mut whole = vec![submit(&fixture, "q", json!({"priority": 9})).await];
        whole.push(submit(&fixture, "q", json!({"priority": 9, "key": "other"})).await);
        whole.push(submit(&fixture, "q", json!({})).await);
        whole.push(submit(&fixture, "last", json!({})).await);
        let mut claimed = Vec::new();
        for _ in &whole {
            let body = json!({"queues": ["q", "last"], "wait_ms": 10_000, "worker": "w"});
            claimed.push(fixture.http.post("/claim", &body).await.expect(200)["tasks"][0]["id"].clone());
        }
        claimed.sort_by(|one, other| text(one).cmp(text(other)));
        whole.sort_by(|one, other| text(one).cmp(text(other)));
        assert_eq!(claimed, whole);
    }

    // A waiting claim rests while only unreadable tasks are left.
    let calls = async || {
        let stats: String = fixture.redis.ask(cmd("INFO").arg("commandstats")).await;
        let line = stats.lines().find(|line| line.starts_with("cmdstat_evalsha:")).unwrap();
        line.split(['=', ',']).nth(1).unwrap().parse::<u64>().unwrap()
    };
    let before = calls().await;
    let started = std::time::Instant::now();
    let body = json!({"queues": ["q"], "wait_ms": 1000, "worker": "w"});
    assert_eq!(fixture.http.post("/claim", &body).await.expect(200)["tasks"], json!([]));
    let per_second = (calls().await - before) as f64 / started.elapsed().as_secs_f64();
    // The claim loop polls every 0.15 s, and upkeep calls about ten scripts a second in each shard.
    assert!(per_second < 60.0 * place.store.shards().len() as f64, "{per_second} calls per second");
    place.repair().await;
    fixture.end().await;
}

#[tokio::test]
async fn unreadable_task_holds_no_dedupe_key() {
    for damage in [
        Damage::String,
        Damage::List,
        Damage::NoPlacement,
        Damage::ShortRecord,
        Damage::NoDocument,
        Damage::OtherVersion,
    ] {
        let fixture = Fixture::start().await;
        let place = Place::of(&fixture).await;
        for mode in ["keep", "replace", "debounce", "after"] {
            let keyed = |name: &str| json!({"queue": mode, "key": "k", "dedupe": {"key": name, "mode": mode}});
            let broken = submit(&fixture, mode, keyed("a")).await;
            place.damage(&fixture, &broken, damage).await;
            let taken = fixture.http.post("/tasks", &keyed("a")).await.expect(201);
            // Some of the damaged tasks can still be claimed.
            let claimed = fixture.claim_now(mode, 10).await;
            assert!(claimed.iter().any(|task| task["id"] == taken["id"]), "{damage:?}, {mode}: {claimed:?}");

            // The task that waits for the end of another is unreadable.
            let holder = submit(&fixture, mode, keyed("b")).await;
            let claimed = fixture.claim_one(mode).await;
            assert_eq!(claimed["id"], holder);
            let after = json!({"queue": mode, "key": "k", "dedupe": {"key": "b", "mode": "after"}});
            let successor = fixture.http.post("/tasks", &after).await.expect(201)["id"].clone();
            place.damage(&fixture, &successor, damage).await;
            let next = fixture.http.post("/tasks", &after).await.expect(201)["id"].clone();
            place.damage(&fixture, &next, damage).await;
            fixture.http.post("/complete", &report(&claimed)).await.expect(200);
        }
        place.repair().await;
        fixture.end().await;
    }
}

#[tokio::test]
async fn unreadable_settings_do_not_end_a_page_of_settings() {
    let fixture = Fixture::start().await;
    for queue in ["a", "b", "c", "d"] {
        fixture.http.post_nothing(&format!("/queues/{queue}/pause")).await.expect(200);
    }
    let store = fixture.store().await;
    let place = Place { index: store.first_shard().index, store };
    place.replace(&fixture, "settings:a", Damage::String).await;
    place.replace(&fixture, "settings:d", Damage::List).await;
    fixture.redis.ask::<()>(cmd("ZADD").arg(place.key("settings_index")).arg(0).arg("b no name")).await;

    let (mut names, mut after) = (Vec::new(), None);
    loop {
        let page = settings_page(&place.store, after.as_deref(), 2).await.unwrap();
        names.extend(page.settings.into_iter().map(|(name, _, _)| name.to_string()));
        after = page.last;
        if after.is_none() {
            break;
        }
    }
    assert_eq!(names, ["b", "c"]);
    place.repair().await;
    fixture.end().await;
}

#[tokio::test]
async fn unreadable_task_fails_alone_in_cancel_retry_and_purge() {
    let fixture = Fixture::start().await;
    let place = Place::of(&fixture).await;
    let mut ids = Vec::new();
    for _ in 0..20 {
        ids.push(submit(&fixture, "q", json!({})).await);
    }
    let (tasks, stop) = (TaskTracker::new(), CancellationToken::new());
    let (store, poll_interval) = (fixture.store().await, Duration::from_millis(100));
    let dispatch = Dispatch::start(store, poll_interval, &fixture.config.limits, Spans::default(), &tasks, &stop);
    let parsed: Vec<TaskId> = ids.iter().map(|id| TaskId::parse(text(id)).unwrap()).collect();

    place.damage(&fixture, &ids[11], Damage::String).await;
    // All are queued before the first call: they share it.
    let outcomes = join_all(parsed.iter().map(|id| dispatch.ops().cancel(*id))).await;
    for (n, outcome) in outcomes.into_iter().enumerate() {
        assert_eq!(outcome.ok(), (n != 11).then_some(Cancelled::Now), "task {n}");
    }
    place.damage(&fixture, &ids[12], Damage::List).await;
    let outcomes = join_all(parsed.iter().map(|id| dispatch.ops().retry(*id))).await;
    for (n, outcome) in outcomes.into_iter().enumerate() {
        assert_eq!(outcome.is_ok(), n != 11 && n != 12, "task {n}");
    }
    stop.cancel();
    drop(dispatch);
    tasks.close();
    tasks.wait().await;

    let body = json!({"states": ["ready"]});
    let purged = fixture.http.post("/queues/q/purge", &body).await.expect(200);
    assert_eq!(purged, json!({"deleted": 18, "more": true}), "the unreadable tasks stay");
    place.repair().await;
    fixture.end().await;
}

#[tokio::test]
async fn unreadable_record_of_a_shard_is_reported_and_replaced_by_repair() {
    let fixture = Fixture::with_shards(1).await;
    let place = Place::of(&fixture).await;
    let first = submit(&fixture, "q", json!({})).await;
    let callers = place.shard().keys.callers();
    fixture.redis.ask::<()>(cmd("HSET").arg(&callers).arg("shard").arg("x")).await;
    assert_eq!(fixture.http.post("/tasks", &json!({"queue": "q", "key": "k"})).await.status, 500);
    until_degraded(&fixture, &["shard 0"]).await;

    place.repair().await;
    until_degraded(&fixture, &[]).await;
    // Its counters go on behind the numbers in use.
    let second = submit(&fixture, "q", json!({})).await;
    assert_eq!(fixture.claim_one("q").await["id"], first);
    assert_eq!(fixture.claim_one("q").await["id"], second);
    assert_eq!(fixture.counts("q").await["submitted"], 2);
    fixture.end().await;
}
