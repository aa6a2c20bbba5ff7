//! Batches: answered in order, and each item succeeds or fails alone.

use serde_json::{Value, json};

use crate::support::{Fixture, report, report_with};

#[tokio::test]
async fn batch_of_a_thousand_submits_is_answered_in_order() {
    let fixture = Fixture::start().await;
    let tasks: Vec<Value> = (0..1000).map(|n| json!({"queue": "q", "key": format!("k{n}"), "payload": n})).collect();
    let results = fixture.http.post("/tasks/batch", &json!({"tasks": tasks})).await.expect(200)["results"].clone();
    let payloads: Vec<i64> =
        results.as_array().unwrap().iter().map(|one| one["task"]["payload"].as_i64().unwrap()).collect();
    assert_eq!(payloads, (0..1000).collect::<Vec<i64>>());
    assert_eq!(fixture.counts("q").await["ready"], 1000);
    fixture.end().await;
}

#[tokio::test]
async fn invalid_item_fails_alone() {
    let fixture = Fixture::start().await;
    let body = json!({"tasks": [{"queue": "q"}, {"queue": "a:b"}, 7, {"queue": "q"}]});
    let results = fixture.http.post("/tasks/batch", &body).await.expect(200)["results"].clone();
    let statuses: Vec<i64> = results.as_array().unwrap().iter().map(|one| one["status"].as_i64().unwrap()).collect();
    assert_eq!(statuses, [201, 422, 422, 201]);
    assert_eq!(results[1]["problem"]["errors"][0]["pointer"], "/tasks/1/queue");
    assert_eq!(fixture.counts("q").await["submitted"], 2);
    fixture.end().await;
}

#[tokio::test]
async fn hundreds_of_tasks_are_claimed_and_completed_in_batches() {
    let fixture = Fixture::start().await;
    let tasks: Vec<Value> = (0..300).map(|n| json!({"queue": "q", "payload": n})).collect();
    fixture.http.post("/tasks/batch", &json!({"tasks": tasks})).await.expect(200);
    let mut done = 0;
    let mut held = fixture.claim_now("q", 100).await;
    while !held.is_empty() {
        let completions: Vec<Value> = held.iter().map(report).collect();
        let body = json!({"completions": completions, "claim": {"queues": ["q"], "max": 100}});
        let answer = fixture.http.post("/complete/batch", &body).await.expect(200);
        let results = answer["results"].as_array().unwrap();
        assert!(results.iter().zip(&held).all(|(one, task)| one["id"] == task["id"] && one["state"] == "completed"));
        done += results.len();
        held = answer["tasks"].as_array().unwrap().clone();
    }
    assert_eq!(done, 300);
    assert_eq!(fixture.counts("q").await["completed"], 300);
    fixture.end().await;
}

#[tokio::test]
async fn repeated_batch_of_completions_gets_the_same_tasks() {
    let fixture = Fixture::with_shards(1).await;
    for n in 0..6 {
        fixture.submit("q", json!(n)).await;
    }
    let held = fixture.claim_now("q", 3).await;
    let completions: Vec<Value> = held.iter().map(report).collect();
    let body = json!({"completions": completions, "claim": {"queues": ["q"], "max": 2}});
    let mut first = fixture.http.post("/complete/batch", &body).await.expect(200);
    let mut again = fixture.http.post("/complete/batch", &body).await.expect(200);
    for answer in [&mut first, &mut again] {
        answer["tasks"].as_array_mut().unwrap().sort_by_key(|task| task["payload"].as_i64());
    }
    assert_eq!(first, again);
    assert_eq!(fixture.counts("q").await["ready"], 1);
    fixture.end().await;
}

#[tokio::test]
async fn task_completed_twice_in_a_batch_is_completed_once() {
    let fixture = Fixture::start().await;
    fixture.submit("q", json!(1)).await;
    let claimed = fixture.claim_one("q").await;
    let body = json!({"completions": [report(&claimed), {"id": claimed["id"], "lease": "other"}, report(&claimed)]});
    let results = fixture.http.post("/complete/batch", &body).await.expect(200)["results"].clone();
    let statuses: Vec<i64> = results.as_array().unwrap().iter().map(|one| one["status"].as_i64().unwrap()).collect();
    assert_eq!(statuses, [200, 409, 200]);
    assert_eq!(results[1]["problem"]["state"], "completed");
    fixture.end().await;
}

#[tokio::test]
async fn order_holds_for_items_of_any_size() {
    let fixture = Fixture::with_shards(1).await;
    let large = "x".repeat(250 * 1024);
    let mut tasks: Vec<Value> = (0..9).map(|n| json!({"queue": "q", "payload": [n, large]})).collect();
    tasks.extend((9..12).map(|n| json!({"queue": "q", "payload": [n]})));
    fixture.http.post("/tasks/batch", &json!({"tasks": tasks})).await.expect(200);
    let mut got = Vec::new();
    while got.len() < 12 {
        got.extend(fixture.claim_now("q", 100).await.iter().map(|task| task["payload"][0].as_i64().unwrap()));
    }
    assert_eq!(got, (0..12).collect::<Vec<i64>>());
    fixture.end().await;
}

#[tokio::test]
async fn invalid_completion_or_heartbeat_fails_alone() {
    let fixture = Fixture::start().await;
    fixture.submit("q", json!(1)).await;
    let claimed = fixture.claim_one("q").await;
    let id = &claimed["id"];
    let wrong = [json!({"id": id}), json!({"id": id, "lease": "x", "percent": 7})];
    let beats = json!({"tasks": [wrong[0], wrong[1], report(&claimed)]});
    let beaten = fixture.http.post("/heartbeat", &beats).await.expect(200)["tasks"].clone();
    assert_eq!(beaten[0]["problem"]["errors"][0]["pointer"], "/tasks/0/lease");
    assert_eq!(beaten[1]["problem"]["code"], "unknown_field");
    assert!(beaten[2]["lease_until"].is_string());
    let body = json!({"completions": [{"id": id, "lease": "x", "retry": true}, report(&claimed)]});
    let results = fixture.http.post("/complete/batch", &body).await.expect(200)["results"].clone();
    assert_eq!((&results[0]["status"], &results[1]["status"]), (&json!(422), &json!(200)));
    fixture.end().await;
}

#[tokio::test]
async fn item_that_some_parsers_cannot_read_is_rejected_alone() {
    let fixture = Fixture::start().await;
    let deep = "[".repeat(63) + &"]".repeat(63);
    let payloads = ["1", "[1e400]", r#"{"a":{"b":1,"b":2}}"#, r#""\ud83d""#, &deep, "1e308"];
    let items: Vec<String> = payloads.iter().map(|payload| format!(r#"{{"queue":"q","payload":{payload}}}"#)).collect();
    let body = format!(r#"{{"tasks":[{}]}}"#, items.join(","));
    let results = fixture.http.post_text("/tasks/batch", &body).await.expect(200)["results"].clone();
    let problem = |index: usize| {
        let problem = &results[index]["problem"];
        (problem["code"].clone(), problem["errors"][0]["pointer"].clone())
    };
    assert_eq!((&results[0]["status"], &results[5]["status"]), (&json!(201), &json!(201)));
    assert_eq!(problem(1), (json!("number_overflow"), json!("/tasks/1/payload/0")));
    assert_eq!(problem(2), (json!("duplicate_field"), json!("/tasks/2/payload/a/b")));
    assert_eq!(problem(3), (json!("lone_surrogate"), json!("/tasks/3/payload")));
    assert_eq!(problem(4), (json!("too_deep"), json!("/tasks/4")));
    assert_eq!(fixture.counts("q").await["submitted"], 2);
    fixture.end().await;
}

#[tokio::test]
async fn failures_in_a_batch_are_answered_in_order_and_counted_once() {
    let fixture = Fixture::start().await;
    for n in 0..3 {
        fixture.submit_with(json!({"queue": "q", "key": "k", "payload": n, "max_attempts": 2})).await;
    }
    let held = fixture.claim_now("q", 3).await;
    let fail = |task: &Value, more: Value| {
        let mut body = report_with(task, json!({"error": {"type": "e", "message": "m"}}));
        more.as_object().unwrap().iter().for_each(|(name, value)| body[name] = value.clone());
        body
    };
    let body = json!({"failures": [
        fail(&held[0], json!({"retry_in_ms": 60_000})),
        fail(&held[1], json!({"retry": false})),
        {"id": held[2]["id"], "lease": "x", "error": {"message": "m"}},
        {"id": uuid::Uuid::now_v7().to_string(), "lease": "x", "error": {"message": "m"}},
        {"id": held[2]["id"], "error": {"message": "m"}},
        fail(&held[2], json!({"retry_in_ms": 0})),
        fail(&held[2], json!({"retry_in_ms": 0})),
    ]});

    let first = fixture.http.post("/fail/batch", &body).await.expect(200);

    let shown = |name: &str| -> Vec<Value> {
        first["results"].as_array().unwrap().iter().map(|one| one[name].clone()).collect()
    };
    assert_eq!(shown("status"), [200, 200, 409, 404, 422, 200, 200]);
    assert_eq!(json!(shown("state")), json!(["scheduled", "dead", null, null, null, "ready", "ready"]));
    let run_at: Vec<bool> = shown("run_at").iter().map(Value::is_string).collect();
    assert_eq!(run_at, [true, false, false, false, false, false, false]);
    assert_eq!(first["results"][4]["problem"]["errors"][0]["pointer"], "/failures/4/lease");
    assert_eq!(fixture.http.post("/fail/batch", &body).await.expect(200)["results"][0], first["results"][0]);
    for task in &held {
        let task = fixture.task(&task["id"]).await;
        assert_eq!((&task["attempts"], &task["errors"][0]["worker"]), (&json!(1), &task["worker"]));
    }
    fixture.end().await;
}

#[tokio::test]
async fn releases_in_a_batch_are_answered_in_order_and_count_no_attempt() {
    let fixture = Fixture::start().await;
    let tasks: Vec<Value> = (0..200).map(|n| json!({"queue": "q", "key": format!("k{n}"), "payload": n})).collect();
    fixture.http.post("/tasks/batch", &json!({"tasks": tasks})).await.expect(200);
    let mut held = fixture.claim_now("q", 100).await;
    held.extend(fixture.claim_now("q", 100).await);
    let mut releases: Vec<Value> = held.iter().map(report).collect();
    releases[7]["delay_ms"] = json!(60_000);
    releases[8]["lease"] = json!("x");

    let body = json!({"releases": releases});
    let results = fixture.http.post("/release/batch", &body).await.expect(200)["results"].clone();

    for (n, result) in results.as_array().unwrap().iter().enumerate() {
        let (status, state) = match n {
            7 => (200, json!("scheduled")),
            8 => (409, Value::Null),
            _ => (200, json!("ready")),
        };
        assert_eq!((&result["status"], &result["state"]), (&json!(status), &state), "{n}");
        assert_eq!(result["id"], held[n]["id"]);
    }
    let again = fixture.http.post("/release/batch", &body).await.expect(200)["results"].clone();
    assert!((0..200).all(|n| n == 8 || again[n] == results[n]), "the same batch gets the same results");
    let counts = fixture.counts("q").await;
    assert_eq!((&counts["ready"], &counts["scheduled"], &counts["leased"]), (&json!(198), &json!(1), &json!(1)));
    for task in &held[..9] {
        assert_eq!(fixture.task(&task["id"]).await["attempts"], 0);
    }
    let empty = fixture.http.post("/release/batch", &json!({"releases": []})).await;
    assert_eq!(empty.problem(422).0, "invalid_value");
    let many: Vec<Value> = (0..1001).map(|_| json!({})).collect();
    assert_eq!(fixture.http.post("/release/batch", &json!({"releases": many})).await.problem(413).0, "batch_too_large");
    fixture.end().await;
}
