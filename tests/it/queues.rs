//! Queues can be read, paused, resumed and purged.

use serde_json::{Value, json};

use crate::support::{Fixture, report, text};

#[tokio::test]
async fn queue_shows_its_counts_and_the_age_of_its_oldest_task() {
    let fixture = Fixture::start().await;
    fixture.submit("q", json!(1)).await;
    fixture.advance(5000);
    fixture.submit("q", json!(2)).await;
    fixture.submit_with(json!({"queue": "q", "delay_ms": 60_000})).await;

    let queue = fixture.http.get("/queues/q").await.expect(200);

    assert_eq!((&queue["queue"], &queue["paused"]), (&json!("q"), &json!(false)));
    let counts = &queue["counts"];
    assert_eq!((&counts["submitted"], &counts["ready"], &counts["scheduled"]), (&json!(3), &json!(2), &json!(1)));
    let age = queue["oldest_ready_age_ms"].as_i64().unwrap();
    assert!((5000..10_000).contains(&age), "{age}");
    assert_eq!(fixture.http.get("/queues/never").await.problem(404).0, "queue_not_found");
    fixture.end().await;
}

#[tokio::test]
async fn queues_are_listed_by_name_and_page() {
    let fixture = Fixture::start().await;
    for name in ["d", "a", "c", "b", "e"] {
        fixture.submit(name, json!(1)).await;
    }
    let mut names = Vec::new();
    let mut path = "/queues?limit=2".to_owned();
    loop {
        let page = fixture.http.get(&path).await.expect(200);
        names.extend(page["queues"].as_array().unwrap().iter().map(|queue| text(&queue["queue"]).to_owned()));
        match page["next_cursor"].as_str() {
            Some(cursor) => path = format!("/queues?limit=2&cursor={cursor}"),
            None => break,
        }
    }
    assert_eq!(names, ["a", "b", "c", "d", "e"]);
    fixture.end().await;
}

#[tokio::test]
async fn paused_queue_delivers_no_task_until_it_is_resumed() {
    let fixture = Fixture::start().await;
    fixture.submit("q", json!(1)).await;
    let paused = fixture.http.post_nothing("/queues/q/pause").await.expect(200);
    assert_eq!(paused["paused"], true);
    fixture.submit_with(json!({"queue": "q", "priority": 9})).await;
    assert!(fixture.claim_now("q", 10).await.is_empty());
    assert_eq!(fixture.counts("q").await["ready"], 2);
    let http = fixture.http.clone();
    let waiting = tokio::spawn(async move { http.post("/claim", &json!({"queues": ["q"], "wait_ms": 20_000})).await });

    fixture.http.post("/queues/q/resume", &json!({})).await.expect(200);

    assert_eq!(waiting.await.unwrap().expect(200)["tasks"].as_array().unwrap().len(), 1);
    fixture.end().await;
}

#[tokio::test]
async fn leased_tasks_of_a_paused_queue_can_be_completed_and_released() {
    let fixture = Fixture::start().await;
    fixture.submit("q", json!(1)).await;
    fixture.submit("q", json!(2)).await;
    let (first, second) = (fixture.claim_one("q").await, fixture.claim_one("q").await);
    fixture.http.post_nothing("/queues/q/pause").await.expect(200);
    fixture.http.post("/complete", &report(&first)).await.expect(200);
    fixture.http.post("/release", &report(&second)).await.expect(200);
    assert!(fixture.claim_now("q", 1).await.is_empty());
    fixture.http.post_nothing("/queues/q/resume").await.expect(200);
    assert_eq!(fixture.claim_one("q").await["id"], second["id"]);
    fixture.end().await;
}

#[tokio::test]
async fn pause_of_an_unused_queue_creates_it() {
    let fixture = Fixture::start().await;
    fixture.http.post_nothing("/queues/new/pause").await.expect(200);
    fixture.submit("new", json!(1)).await;
    assert!(fixture.claim_now("new", 1).await.is_empty());
    assert_eq!(fixture.http.get("/queues/new").await.expect(200)["paused"], true);
    fixture.end().await;
}

#[tokio::test]
async fn purge_deletes_the_named_states_and_no_leased_task() {
    let fixture = Fixture::start().await;
    let tasks: Vec<Value> = (0..1200).map(|n| json!({"queue": "q", "key": format!("k{}", n % 5)})).collect();
    for chunk in tasks.chunks(1000) {
        fixture.http.post("/tasks/batch", &json!({"tasks": chunk})).await.expect(200);
    }
    fixture.submit_with(json!({"queue": "q", "delay_ms": 60_000, "dedupe": {"key": "d"}})).await;
    let held = fixture.claim_one("q").await;

    let purged = fixture.http.post("/queues/q/purge", &json!({"states": ["ready"]})).await.expect(200);

    assert_eq!(purged, json!({"deleted": 1199, "more": false}));
    let counts = fixture.counts("q").await;
    assert_eq!((&counts["ready"], &counts["scheduled"], &counts["leased"]), (&json!(0), &json!(1), &json!(1)));
    fixture.http.post("/queues/q/purge", &json!({"states": ["scheduled"]})).await.expect(200);
    fixture.submit_with(json!({"queue": "q", "dedupe": {"key": "d"}})).await;
    fixture.http.post("/complete", &report(&held)).await.expect(200);
    let purged = fixture.http.post("/queues/q/purge", &json!({"states": ["completed", "ready"]})).await.expect(200);
    assert_eq!(purged["deleted"], 2);
    let (code, pointer) = fixture.http.post("/queues/q/purge", &json!({"states": ["leased"]})).await.problem(422);
    assert_eq!((code.as_str(), pointer.as_deref()), ("invalid_value", Some("/states/0")));
    fixture.end().await;
}
