//! Lists have every task once, page by page, in order.

use serde_json::{Value, json};

use crate::support::{Fixture, report, text};

/// Reads all pages of a list.
async fn pages(fixture: &Fixture, query: &str, limit: u32) -> Vec<Value> {
    let mut all = Vec::new();
    let mut path = format!("/tasks?{query}&limit={limit}");
    loop {
        let answer = fixture.http.get(&path).await;
        let page = answer.expect(200);
        let tasks = page["tasks"].as_array().unwrap();
        assert!(tasks.len() <= limit as usize);
        all.extend(tasks.clone());
        match page["next_cursor"].as_str() {
            None => return all,
            Some(cursor) => {
                let link = answer.header("link").expect("a link to the next page");
                assert!(link.contains(cursor) && link.ends_with("rel=\"next\""));
                path = link[1..link.find('>').unwrap()].to_owned();
            }
        }
    }
}

#[tokio::test]
async fn ready_tasks_are_listed_by_priority_slot_and_position() {
    let fixture = Fixture::start().await;
    let mut tasks = Vec::new();
    for n in 0..90 {
        tasks.push(json!({"queue": "q", "key": format!("k{}", n % 7), "priority": n % 3 + 3, "payload": n}));
    }
    fixture.http.post("/tasks/batch", &json!({"tasks": tasks})).await.expect(200);

    let listed = pages(&fixture, "queue=q&state=ready", 7).await;

    assert_eq!(listed.len(), 90);
    let place = |task: &Value| {
        let number = |name: &str| task[name].as_i64().unwrap();
        (-number("priority"), number("slot"), number("payload"))
    };
    assert!(listed.windows(2).all(|pair| place(&pair[0]) < place(&pair[1])));
    fixture.end().await;
}

#[tokio::test]
async fn ready_tasks_over_many_slots_are_all_listed() {
    let fixture = Fixture::start().await;
    for chunk in 0..3 {
        let tasks: Vec<Value> =
            (0..1000).map(|n| json!({"queue": "q", "key": format!("k{}", chunk * 1000 + n)})).collect();
        fixture.http.post("/tasks/batch", &json!({"tasks": tasks})).await.expect(200);
    }
    let mut ids: Vec<String> =
        pages(&fixture, "queue=q&state=ready", 250).await.iter().map(|task| text(&task["id"]).to_owned()).collect();
    ids.sort_unstable();
    ids.dedup();
    assert_eq!(ids.len(), 3000);
    fixture.end().await;
}

#[tokio::test]
async fn full_slots_among_many_are_listed_completely() {
    let fixture = Fixture::with_shards(1).await;
    let mut tasks: Vec<Value> = (0..1800).map(|n| json!({"queue": "q", "key": format!("k{n}")})).collect();
    tasks.extend((0..150).map(|_| json!({"queue": "q", "key": "full"})));
    for chunk in tasks.chunks(1000) {
        fixture.http.post("/tasks/batch", &json!({"tasks": chunk})).await.expect(200);
    }
    let listed = pages(&fixture, "queue=q&state=ready", 400).await;
    assert_eq!(listed.len(), 1950);
    assert_eq!(listed.iter().filter(|task| task["key"] == "full").count(), 150);
    fixture.end().await;
}

#[tokio::test]
async fn other_states_are_listed_by_their_time() {
    let fixture = Fixture::start().await;
    for n in 0..30 {
        let body =
            json!({"queue": "q", "key": format!("k{n}"), "delay_ms": 60_000 + (n * 7 % 30) * 1000, "payload": n});
        fixture.submit_with(body).await;
    }
    let scheduled = pages(&fixture, "queue=q&state=scheduled", 4).await;
    assert_eq!(scheduled.len(), 30);
    assert!(scheduled.windows(2).all(|pair| text(&pair[0]["run_at"]) <= text(&pair[1]["run_at"])));
    for task in &scheduled {
        fixture.http.post_nothing(&format!("/tasks/{}/cancel", text(&task["id"]))).await.expect(200);
    }
    let cancelled = pages(&fixture, "queue=q&state=cancelled", 4).await;
    assert_eq!(cancelled.len(), 30);
    assert!(cancelled.windows(2).all(|pair| text(&pair[0]["finished_at"]) >= text(&pair[1]["finished_at"])));
    fixture.end().await;
}

#[tokio::test]
async fn tasks_ended_in_the_same_millisecond_are_each_listed_once() {
    let fixture = Fixture::start().await;
    let tasks: Vec<Value> = (0..100).map(|n| json!({"queue": "q", "payload": n})).collect();
    fixture.http.post("/tasks/batch", &json!({"tasks": tasks})).await.expect(200);
    let held = fixture.claim_now("q", 100).await;
    let mut count = held.len();
    let completions: Vec<Value> = held.iter().map(report).collect();
    fixture.http.post("/complete/batch", &json!({"completions": completions})).await.expect(200);
    while count < 100 {
        let held = fixture.claim_now("q", 100).await;
        count += held.len();
        let completions: Vec<Value> = held.iter().map(report).collect();
        fixture.http.post("/complete/batch", &json!({"completions": completions})).await.expect(200);
    }
    let mut ids: Vec<String> =
        pages(&fixture, "queue=q&state=completed", 9).await.iter().map(|task| text(&task["id"]).to_owned()).collect();
    assert_eq!(ids.len(), 100);
    ids.sort_unstable();
    ids.dedup();
    assert_eq!(ids.len(), 100);
    fixture.end().await;
}

#[tokio::test]
async fn list_continues_after_the_last_task_of_a_page_is_deleted() {
    let fixture = Fixture::start().await;
    for n in 0..6 {
        fixture.submit_with(json!({"queue": "q", "delay_ms": 60_000 + n * 1000, "payload": n})).await;
    }
    let first = fixture.http.get("/tasks?queue=q&state=scheduled&limit=3").await.expect(200);
    fixture.http.post_nothing(&format!("/tasks/{}/cancel", text(&first["tasks"][2]["id"]))).await.expect(200);
    let cursor = text(&first["next_cursor"]).to_owned();
    let rest = fixture.http.get(&format!("/tasks?queue=q&state=scheduled&cursor={cursor}")).await.expect(200);
    let payloads: Vec<i64> =
        rest["tasks"].as_array().unwrap().iter().map(|task| task["payload"].as_i64().unwrap()).collect();
    assert_eq!(payloads, [3, 4, 5]);
    fixture.end().await;
}

#[tokio::test]
async fn tag_filters_a_page() {
    let fixture = Fixture::start().await;
    for n in 0..20 {
        fixture.submit_with(json!({"queue": "q", "tags": [if n % 4 == 0 { "a b&c" } else { "x" }]})).await;
    }
    assert_eq!(pages(&fixture, "queue=q&state=ready&tag=a%20b%26c", 3).await.len(), 5);
    assert_eq!(pages(&fixture, "queue=q&state=ready&tag=none", 3).await.len(), 0);
    fixture.end().await;
}

#[tokio::test]
async fn large_tasks_make_short_pages_that_continue() {
    let fixture = Fixture::start().await;
    let large = "x".repeat(200 * 1024);
    for n in 0..25 {
        fixture.submit_with(json!({"queue": "q", "payload": [n, large]})).await;
    }
    let listed = pages(&fixture, "queue=q&state=ready", 1000).await;
    assert_eq!(listed.len(), 25);
    fixture.end().await;
}

#[tokio::test]
async fn list_of_an_unused_queue_is_empty() {
    let fixture = Fixture::start().await;
    let empty = json!({"tasks": [], "next_cursor": null});
    assert_eq!(fixture.http.get("/tasks?queue=q&state=dead").await.expect(200), empty);
    assert_eq!(fixture.http.get("/queues").await.expect(200), json!({"queues": [], "next_cursor": null}));
    fixture.end().await;
}
