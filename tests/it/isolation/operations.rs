//! Operations that meet unreadable tasks.

use std::time::Duration;

use futures_util::future::join_all;
use serde_json::json;
use slotwheel::dispatch::Dispatch;
use slotwheel::domain::id::TaskId;
use slotwheel::spans::Spans;
use slotwheel::store::ops::cancel::Cancelled;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::{Damage, Place, submit};
use crate::support::{Fixture, text};

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
