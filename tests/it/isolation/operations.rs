//! Operations that meet unreadable tasks and settings.

use std::time::Duration;

use deadpool_redis::redis::cmd;
use futures_util::future::join_all;
use serde_json::json;
use slotwheel::dispatch::Dispatch;
use slotwheel::domain::id::TaskId;
use slotwheel::spans::Spans;
use slotwheel::store::ops::cancel::Cancelled;
use slotwheel::store::views::queues::settings_page;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::{Damage, Place, submit};
use crate::support::{Fixture, report, text};

#[tokio::test]
async fn unreadable_task_holds_no_dedupe_key() {
    for damage in [Damage::String, Damage::List, Damage::NoSlot, Damage::NoNumber, Damage::NoDocument, Damage::NoTimes]
    {
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
